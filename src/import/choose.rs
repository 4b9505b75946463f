//! Which images of a file are wanted, and under which names. Plain data in and out.

use super::Wish;
use super::error::ImportError;
use super::found::{Found, What, full_name};
use crate::oci::{Image, Platform};
use crate::reference::{Name, Reference};

/// Where images go that nobody named: no registry has that name.
const NAMELESS: &str = "localhost/imported";

/// An image, and what it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// What the file calls it.
    pub(super) names: Vec<String>,
    pub(super) what: What,
    /// The name that it is to bear, and with a digest the pin that it has to be.
    pub(super) asked: Reference,
}

/// The images that are wanted.
pub(super) fn choose(found: &[Found], wish: &Wish) -> Result<Vec<Choice>, ImportError> {
    if let Some(reference) = &wish.reference {
        let asked = match (reference.digest(), wish.told) {
            (None, Some(told)) => reference.pinned_to(told),
            _ => reference.clone(),
        };
        let image = pick(found, &asked)?;
        return Ok(vec![on_platform(choice(image, asked)?, wish)?]);
    }
    let mut choices = Vec::new();
    for image in found {
        let names = if wish.accept_names { names(image)? } else { Vec::new() };
        for name in &names {
            choices.push(choice(image, wish.told.map_or(name.to_reference(), |told| name.pinned_to(told)))?);
        }
        if names.is_empty() {
            choices.push(choice(image, nameless(image))?);
        }
    }
    // What is there for another platform is passed over, as long as something is there for this one.
    let offered = choices.iter().flat_map(|choice| platforms(&choice.what)).collect::<Vec<_>>();
    let chosen: Vec<Choice> = choices.into_iter().filter_map(|choice| on_platform(choice, wish).ok()).collect();
    match (&wish.platform, chosen.is_empty()) {
        (Some(wanted), true) => Err(ImportError::NoSuchPlatform { wanted: wanted.clone(), offered }),
        _ => Ok(chosen),
    }
}

/// The one image that is meant: the one with that digest, the one of that name, or the only one.
fn pick<'f>(found: &'f [Found], asked: &Reference) -> Result<&'f Found, ImportError> {
    if let Some(digest) = asked.digest()
        && let Some(image) = found.iter().find(|image| has(image, &digest))
    {
        return Ok(image);
    }
    let candidates: Vec<&Found> = match asked.digest() {
        // One that has manifests, and other ones, is not meant.
        Some(_) => found.iter().filter(|image| matches!(image.what, What::Bare(_))).collect(),
        None => found.iter().collect(),
    };
    match candidates[..] {
        [] => Err(not_the_pin(found, asked)),
        [one] => Ok(one),
        _ => {
            let several = || ImportError::Several { names: candidates.iter().flat_map(|image| shown(image)).collect() };
            candidates.iter().find(|image| image.is_called(&asked.name())).copied().ok_or_else(several)
        }
    }
}

fn has(image: &Found, digest: &crate::digest::Digest) -> bool {
    match &image.what {
        What::Whole(root, images) => root.digest == *digest || images.iter().any(|image| image.manifest.digest == *digest),
        What::Bare(_) => false,
    }
}

/// The image under that reference. If the digest there is that of one platform's manifest, this is the root.
fn choice(image: &Found, asked: Reference) -> Result<Choice, ImportError> {
    let what = match (&image.what, asked.digest()) {
        (What::Whole(root, _), Some(digest)) if root.digest != digest => {
            let one = match &image.what {
                What::Whole(_, images) => images.iter().find(|image| image.manifest.digest == digest),
                What::Bare(_) => None,
            };
            let one = one.ok_or_else(|| not_the_pin(std::slice::from_ref(image), &asked))?;
            What::Whole(one.manifest.clone(), vec![Image { root: one.manifest.clone(), ..one.clone() }])
        }
        (what, _) => what.clone(),
    };
    Ok(Choice { names: image.names.clone(), what, asked })
}

/// The image for the platform that is wanted; for all that there are if none was said.
fn on_platform(choice: Choice, wish: &Wish) -> Result<Choice, ImportError> {
    let Some(wanted) = &wish.platform else { return Ok(choice) };
    let none = |what: &What| ImportError::NoSuchPlatform { wanted: wanted.clone(), offered: platforms(what) };
    let what = match choice.what {
        What::Whole(root, images) => {
            let suits = images.iter().filter_map(|image| Some((wanted.rank(&image.platform)?, image)));
            let best = suits.min_by_key(|(rank, _)| *rank).map(|(_, image)| image.clone());
            match best {
                Some(image) => What::Whole(root, vec![image]),
                None => return Err(none(&What::Whole(root, images))),
            }
        }
        What::Bare(bare) if wanted.rank(&bare.platform).is_some() => What::Bare(bare),
        what @ What::Bare(_) => return Err(none(&what)),
    };
    Ok(Choice { what, ..choice })
}

fn platforms(what: &What) -> Vec<Platform> {
    match what {
        What::Whole(_, images) => images.iter().map(|image| image.platform.clone()).collect(),
        What::Bare(bare) => vec![bare.platform.clone()],
    }
}

/// The full names that the file gives an image, each once. A tag alone is none; what no engine takes for a name is refused.
fn names(image: &Found) -> Result<Vec<Name>, ImportError> {
    let mut names = Vec::new();
    for text in &image.names {
        match full_name(text) {
            Some(name) if !names.contains(&name) => names.push(name),
            Some(_) => {}
            None if text.contains(['/', ':', '@']) => return Err(ImportError::BadName { name: escaped(text) }),
            None => {}
        }
    }
    Ok(names)
}

fn nameless(image: &Found) -> Reference {
    let hex = image.digest().hex();
    let kind = if matches!(image.what, What::Whole(..)) { "pinned" } else { "id" };
    format!("{NAMELESS}:{kind}-{}", &hex[..16]).parse().expect("it is a name and a tag")
}

fn not_the_pin(found: &[Found], wanted: &Reference) -> ImportError {
    ImportError::NotThePin { wanted: wanted.clone(), offered: found.iter().map(|image| image.digest().to_string()).collect() }
}

fn shown(image: &Found) -> Vec<String> {
    match &image.names[..] {
        [] => vec![image.digest().to_string()],
        names => names.iter().map(|name| escaped(name)).collect(),
    }
}

/// A text out of a file, fit to be shown.
pub(super) fn escaped(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}
