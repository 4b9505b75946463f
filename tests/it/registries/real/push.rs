//! Blobs and manifests that no other tool pushes.

use larder::digest::Digest;

/// Puts blobs and manifests into a registry one by one, as they are.
pub struct Push {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    repository: String,
}

impl Push {
    /// Into this repository of a registry without a password.
    pub fn to(host: &str, repository: &str) -> Push {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        Push { client: reqwest::Client::new(), runtime, repository: format!("http://{host}/v2/{repository}") }
    }

    /// The status that a blob is answered with.
    pub fn blob(&self, digest: &Digest, bytes: &[u8]) -> u16 {
        self.runtime.block_on(async {
            let begun = self.client.post(format!("{}/blobs/uploads/", self.repository)).send().await.expect("the registry answers");
            let place = begun.headers()["location"].to_str().expect("a URL").to_owned();
            let put = self.client.put(place).query(&[("digest", digest.to_string())]).body(bytes.to_vec());
            put.send().await.expect("the registry answers").status().as_u16()
        })
    }

    /// The status that a manifest is answered with.
    pub fn manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> u16 {
        let put = self.client.put(format!("{}/manifests/{name}", self.repository)).header("content-type", media_type).body(bytes.to_vec());
        self.runtime.block_on(put.send()).expect("the registry answers").status().as_u16()
    }
}
