//! The one reader of JSON that comes from outside.
//!
//! Go's reader takes the last of two equal keys and does not care for their case; serde's takes the exact one. A
//! document that the two would read differently is refused here, so that what larder verified is what an
//! engine will see; so is a list where an object belongs. Depth is bounded; the size of the text is bounded by whoever read it.

mod objects;

use std::collections::HashSet;
use std::fmt;

use objects::Objects;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deeper nesting than any manifest or config has.
const DEPTH: usize = 32;

/// Objects whose keys are free texts and may differ in case alone: maps in Go, read exactly.
const FREE_KEYS: [&str; 6] = ["annotations", "labels", "exposedports", "volumes", "layersources", "auths"];

/// Reads a document whose keys are unambiguous, and whose `known` keys are spelled as they should be.
///
/// `known` holds the keys that the type reads: a key that equals one of them but for its case is refused.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], known: &[&str]) -> Result<T, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    Unambiguous { known, depth: 0, free: false }.deserialize(&mut reader)?;
    reader.end()?;
    read(text)
}

/// Reads a document that decides nothing by itself, or that larder wrote: keys may be ambiguous, and objects are objects all the same.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text).map(|Object(read)| read)
}

#[derive(Clone, Copy)]
struct Unambiguous<'a> {
    known: &'a [&'a str],
    depth: usize,
    /// Whether the keys of this object are free texts.
    free: bool,
}

impl Unambiguous<'_> {
    fn inner<E: de::Error>(self, key: &str) -> Result<Self, E> {
        if self.depth == DEPTH {
            return Err(E::custom(format_args!("nested deeper than {DEPTH} levels")));
        }
        Ok(Unambiguous { depth: self.depth + 1, free: FREE_KEYS.contains(&key), ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Unambiguous<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let folded = fold(&key);
            let misspelled = !self.free && self.known.iter().any(|k| k.eq_ignore_ascii_case(&folded) && *k != key);
            if misspelled {
                return Err(de::Error::custom(format_args!("the key `{}` is not spelled as the specification has it", key.escape_debug())));
            }
            let unique = if self.free { key.clone() } else { folded.clone() };
            if !seen.insert(unique) {
                return Err(de::Error::custom(format_args!("the key `{}` stands twice in one object", key.escape_debug())));
            }
            map.next_value_seed(self.inner(&folded)?)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner("")?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key as Go compares it. It folds the long s too, so that to docker and skopeo `layerſ` is `layers`.
fn fold(key: &str) -> String {
    key.chars().flat_map(char::to_lowercase).map(|c| if c == 'ſ' { 's' } else { c }).collect()
}

/// What is written with objects where it has structs, all the way down. serde would also take lists of their values, which Go's reader refuses.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        T::deserialize(Objects(deserializer)).map(Object)
    }
}

/// Reads `null` as the default, as Go's reader does.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(<Option<T> as Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    fn refused(text: &str) -> bool {
        super::parse::<Value>(text.as_bytes(), &["config", "mediaType", "diff_ids"]).is_err()
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let deep = "[".repeat(4 << 20);
        let nested = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let bad = [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"A":2}"#,
            r#"{"x":[{"b":{"k":1,"K":1}}]}"#,
            r#"{"Config":1}"#,
            r#"{"layers":[],"layerſ":[]}"#,
            r#"{"diff_idſ":[]}"#,
            r#"{"mediaType":1,"ſ":1,"s":1}"#,
            r#"{"k":1,"\u212a":1}"#,
            r#"{"\u212a":1,"K":1}"#,
            r#"{"annotations":{"a":"1","a":"2"}}"#,
            r#"{"a":1} {}"#,
            r#"{"a":NaN}"#,
            "\u{feff}{}",
            r#"{"a":"\ud800"}"#,
            "",
            &deep,
            &nested,
        ];
        for text in bad {
            assert!(refused(text), "{}", &text[..text.len().min(60)]);
        }
        for good in [
            r#"{"Labels":{"Name":"a","name":"b"},"mediaType":null}"#,
            r#"{"a":[1,2.5,true,null,"x"]}"#,
            r#"{"annotations":{"Config":"x"}}"#,
        ] {
            assert!(!refused(good), "{good}");
        }
    }

    #[test]
    fn a_list_is_no_object_at_any_depth() {
        #[derive(Debug, Default, PartialEq, serde::Deserialize)]
        struct Inner {
            a: u8,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Outer {
            one: Option<Inner>,
            #[serde(default, deserialize_with = "super::null_is_default")]
            many: Vec<Inner>,
            named: std::collections::BTreeMap<String, Inner>,
            pair: (u8, String),
        }
        let good = r#"{"one":{"a":1},"many":[{"a":2},{"a":3}],"named":{"x":{"a":4}},"pair":[5,"y"]}"#;
        let read: Outer = super::parse(good.as_bytes(), &[]).unwrap();
        assert_eq!(read.many, [Inner { a: 2 }, Inner { a: 3 }]);
        assert_eq!((read.one, &read.named["x"], read.pair), (Some(Inner { a: 1 }), &Inner { a: 4 }, (5, "y".into())));
        for object in [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":4}"#] {
            let list = good.replace(object, &object.replace("{\"a\":", "[").replace('}', "]"));
            assert!(list != good && serde_json::from_str::<Outer>(&list).is_ok(), "serde takes {list}");
            for read in [super::parse::<Outer>, |text, _| super::read(text)] as [fn(&[u8], &[&str]) -> Result<Outer, serde_json::Error>; 2]
            {
                let error = read(list.as_bytes(), &[]).unwrap_err();
                assert!(error.to_string().starts_with("invalid type: sequence, expected struct Inner at line 1"), "{error}");
            }
        }
        assert!(super::parse::<Outer>(br#"[null,[],{},[5,"y"]]"#, &[]).is_err());
        let nothing: Outer = super::parse(br#"{"one":null,"many":null,"named":{},"pair":[5,"y"]}"#, &[]).unwrap();
        assert_eq!((nothing.one, nothing.many), (None, vec![]));
    }
}
