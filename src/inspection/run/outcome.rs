//! How a rule or a run came out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a rule or a run came out; the words of OpenReports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Pass,
    /// All is well, but not as well as it should be.
    Warn,
    /// Something is wrong.
    Fail,
    /// It could not be told.
    Error,
    /// It was not looked at, as something that it rests on did not pass. A run is never skipped.
    Skip,
}

impl Outcome {
    /// All of them, best first.
    pub const ALL: [Outcome; 5] =
        [Outcome::Skip, Outcome::Pass, Outcome::Warn, Outcome::Error, Outcome::Fail];

    /// How bad it is: skip, pass, warn, error, fail.
    fn rank(self) -> u8 {
        match self {
            Outcome::Skip => 0,
            Outcome::Pass => 1,
            Outcome::Warn => 2,
            Outcome::Error => 3,
            Outcome::Fail => 4,
        }
    }

    /// The worse of both: fail before error before warn before pass before skip.
    pub fn worse(self, other: Outcome) -> Outcome {
        if self.rank() >= other.rank() { self } else { other }
    }

    /// The verdict over rules: the worst of theirs. Where nothing was looked at it is an error, as nothing could be told.
    pub fn of(results: impl IntoIterator<Item = Outcome>) -> Outcome {
        match results.into_iter().fold(Outcome::Skip, Outcome::worse) {
            Outcome::Skip => Outcome::Error,
            told => told,
        }
    }

    /// Whether it is a pass or a warning.
    pub fn well(self) -> bool {
        matches!(self, Outcome::Pass | Outcome::Warn)
    }

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
            Outcome::Error => "error",
            Outcome::Skip => "skip",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// How many rules came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Counts {
    pub pass: u32,
    pub warn: u32,
    pub fail: u32,
    pub error: u32,
    pub skip: u32,
}

impl Counts {
    /// One more.
    pub fn count(&mut self, outcome: Outcome) {
        let number = match outcome {
            Outcome::Pass => &mut self.pass,
            Outcome::Warn => &mut self.warn,
            Outcome::Fail => &mut self.fail,
            Outcome::Error => &mut self.error,
            Outcome::Skip => &mut self.skip,
        };
        *number = number.saturating_add(1);
    }

    /// How many there are of one.
    pub fn of(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Pass => self.pass,
            Outcome::Warn => self.warn,
            Outcome::Fail => self.fail,
            Outcome::Error => self.error,
            Outcome::Skip => self.skip,
        }
    }

    /// How many there are.
    pub fn total(&self) -> u32 {
        Outcome::ALL.into_iter().map(|outcome| self.of(outcome)).sum()
    }

    /// How many did not pass: warn, fail and error.
    pub fn findings(&self) -> u32 {
        self.warn + self.fail + self.error
    }
}

impl FromIterator<Outcome> for Counts {
    fn from_iter<T: IntoIterator<Item = Outcome>>(outcomes: T) -> Self {
        let mut counts = Counts::default();
        outcomes.into_iter().for_each(|outcome| counts.count(outcome));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_rule_gives_the_verdict() {
        use Outcome::*;
        assert_eq!(Outcome::of([Pass, Warn, Skip]), Warn);
        assert_eq!(Outcome::of([Pass, Error, Warn]), Error);
        assert_eq!(Outcome::of([Error, Fail, Pass]), Fail);
        assert_eq!(Outcome::of([Pass, Skip]), Pass);
    }

    #[test]
    fn where_nothing_was_looked_at_nothing_is_well() {
        assert_eq!(Outcome::of([]), Outcome::Error);
        assert_eq!(Outcome::of([Outcome::Skip]), Outcome::Error);
    }

    #[test]
    fn counting_loses_none() {
        let counts: Counts = Outcome::ALL.into_iter().chain([Outcome::Fail]).collect();
        assert_eq!((counts.total(), counts.fail, counts.findings()), (6, 2, 4));
    }
}
