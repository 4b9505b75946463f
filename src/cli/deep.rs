//! What examining an image in an engine found, in words and for scripts.

use larder::deep::{Damage, Examination, Harm, Level, Obstacles};
use larder::engine::About;
use serde_json::{Value, json};

use super::display;

/// How many findings of a layer are shown to people; scripts get them all.
const SHOWN: usize = 20;

/// What was compared, or why not: lines to stand under the proof.
pub(crate) fn compared(examination: &Examination, about: &About) -> String {
    match &examination.out_of_reach {
        None => format!(
            "deep:   {} in {}, {} compared with the files that {about} unpacked",
            display::count(usize::try_from(examination.entries).unwrap_or(usize::MAX), "entry").replace("entrys", "entries"),
            display::count(examination.layers, "layer"),
            display::size(examination.bytes),
        ),
        Some(why) => format!("deep:   not reached: {why}\n  level:  {}", level(examination, about)),
    }
}

fn level(examination: &Examination, about: &About) -> String {
    match (examination.level, examination.exported) {
        (Level::Content, true) => format!("content: the archive that {about} makes of it has all layers"),
        (Level::Content, false) => "content".to_owned(),
        (Level::Identity, _) => "identity".to_owned(),
        (Level::Deep, _) => "deep".to_owned(),
    }
}

/// The damaged layers and what is wrong with each.
pub(crate) fn damage(damage: &[Damage], layers: usize) -> String {
    let mut lines = Vec::new();
    for one in damage {
        lines.push(format!("layer:  {} ({} of {layers})", one.diff_id, one.place + 1));
        match &one.harm {
            Harm::Folder(folder) => lines.push(format!("  its folder is gone: {}", folder.display())),
            Harm::Export => lines.push("  not in the archive that the engine makes of the image, or not with these bytes".to_owned()),
            Harm::Files(examined) => {
                lines.extend(examined.findings.iter().take(SHOWN).map(|finding| format!("  {finding}")));
                let more = examined.findings.len().saturating_sub(SHOWN) as u64 + examined.more;
                if more > 0 {
                    lines.push(format!("  and {more} more"));
                }
            }
        }
    }
    lines.join("\n  ")
}

/// An examination for scripts.
pub(crate) fn json(examination: &Examination) -> Value {
    json!({
        "level": examination.level, "files": examination.out_of_reach.is_none(), "export": examination.exported,
        "out_of_reach": examination.out_of_reach.as_ref().map(ToString::to_string),
        "layers": examination.layers, "entries": examination.entries, "bytes": examination.bytes,
        "damage": examination.damage.iter().map(damage_json).collect::<Vec<_>>(),
    })
}

pub(crate) fn damage_json(damage: &Damage) -> Value {
    let mut json = json!({ "layer": damage.diff_id, "number": damage.place + 1 });
    let more = match &damage.harm {
        Harm::Files(examined) => json!({ "harm": "files", "findings": examined.findings, "more_findings": examined.more }),
        Harm::Folder(folder) => json!({ "harm": "folder-missing", "folder": folder }),
        Harm::Export => json!({ "harm": "not-in-export" }),
    };
    json = display::merged(json, more);
    json
}

/// Who needs damaged layers.
pub(crate) fn obstacles(obstacles: &Obstacles) -> Vec<(&'static str, String)> {
    let list = |label, names: &[String]| (!names.is_empty()).then(|| (label, names.join("\n")));
    [list("containers", &obstacles.containers), list("images", &obstacles.images)].into_iter().flatten().collect()
}
