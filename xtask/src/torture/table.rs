//! What an experiment showed, as the table that stands in `docs/reliability.md`.

use std::time::Duration;

/// What an experiment showed.
pub(super) struct Outcome {
    /// What was done, in a few words.
    pub(super) title: &'static str,
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
    /// What was not survived, each as a message for whoever mends it. None: passed.
    pub(super) failures: Vec<String>,
}

/// How many failures are shown in full.
const SHOWN: usize = 20;

impl Outcome {
    pub(super) fn print(&self, took: Duration) {
        println!("\n### {}\n", self.title);
        println!("| {} |", self.columns.join(" | "));
        println!("|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        for failure in self.failures.iter().take(SHOWN) {
            println!("\n- {}", failure.replace('\n', "\n  "));
        }
        if self.failures.len() > SHOWN {
            println!("\n… and {} more", self.failures.len() - SHOWN);
        }
        let verdict = if self.failures.is_empty() { "survived".to_owned() } else { format!("NOT SURVIVED: {}", self.failures.len()) };
        println!("\n{}: {verdict}, in {:.0} s", self.title, took.as_secs_f64());
    }
}

/// The middle one of these times.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
