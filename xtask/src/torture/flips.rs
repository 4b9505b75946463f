//! Damage at random: single bits, ends, stretches of zeros, swaps. All of it is refused on its way out, found by `verify`, and
//! mended by fetching exactly what was bad.

use super::table::Outcome;
use crate::run::{self, Result};
use crate::support::damage::{Dice, MANY, Victims};
use crate::support::sandbox::Sandbox;

/// How many times a thousand blobs are damaged, each time others in other ways.
const ROUNDS: u64 = 10;

pub(super) fn run(bounded: bool) -> Result<Outcome> {
    let victims = Victims::in_sandbox(Sandbox::of(run::build_larder(false)?).in_memory());
    let mut outcome = Outcome {
        title: "blobs damaged at random: one bit flipped, truncated, extended, zeroed, swapped",
        columns: &["round", "damaged", "left the store", "found by verify", "mended", "requests for what was bad", "for anything else"],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    for round in 1..=if bounded { 1 } else { ROUNDS } {
        let mut dice = Dice::new(round);
        let through = victims.let_through(MANY, &mut dice);
        let judged = victims.find_and_mend(MANY, &mut dice, round % 2 == 1);
        let figures = [MANY, through.len(), judged.found, judged.mended, judged.asked, judged.asked_besides];
        outcome.rows.push(std::iter::once(round.to_string()).chain(figures.map(|n| n.to_string())).collect());
        outcome.failures.extend(through);
        outcome.failures.extend(judged.wrong);
    }
    Ok(outcome)
}
