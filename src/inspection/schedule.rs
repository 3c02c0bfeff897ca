//! When a task is due: exactly when Kubernetes' CronJob controller says so, which asks robfig/cron v3.
//!
//! What is peculiar to it is kept:
//! - With a `*` or `?` in the day of month or the day of week a day must match both; without, either. A step takes the star's
//!   effect away: `*/2` is a list.
//! - Sunday is 0, and 7 is refused.
//! - In an hour that the clock skips in spring nothing is due that day, unless the minute is; in an hour that it repeats in
//!   autumn, what is due is due twice.
//! - A date that does not come within five years never comes.

use std::cell::Cell;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use thiserror::Error;

/// A schedule: the minutes, hours, days and months that match, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

/// A field had a star, and so restricts nothing.
const STAR: u64 = 1 << 63;

/// A schedule that a CronJob would not take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// It has not five fields.
    #[error("a schedule has five fields (minute, hour, day of month, month, day of week); this one has {0}")]
    Fields(usize),
    /// It begins with an @ and is none of the known words.
    #[error(
        "{0:?} is unknown; there are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly"
    )]
    Word(String),
    /// It holds a time zone.
    #[error("the time zone belongs into timeZone, not into the schedule")]
    Zone,
    /// A field can't be read.
    #[error("{field}: {part:?}: {why}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The part of it, between commas.
        part: String,
        /// What is wrong.
        why: String,
    },
}

/// The bounds of a field, and its names.
struct Bounds {
    field: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { field: "minute", least: 0, most: 59, names: &[] };
const HOUR: Bounds = Bounds { field: "hour", least: 0, most: 23, names: &[] };
const DAY: Bounds = Bounds { field: "day of month", least: 1, most: 31, names: &[] };
const MONTH: Bounds = Bounds {
    field: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Bounds = Bounds {
    field: "day of week",
    least: 0,
    most: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Bounds {
    /// The bits of a list of ranges.
    fn bits(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').filter(|part| !part.is_empty()).try_fold(0, |bits, part| {
            let bad = |why| ScheduleError::Field { field: self.field, part: part.to_owned(), why };
            Ok(bits | self.range(part).map_err(bad)?)
        })
    }

    /// `*`, `n`, `n-m`, each perhaps with `/step`.
    fn range(&self, part: &str) -> Result<u64, String> {
        let mut slashed = part.split('/');
        let range = slashed.next().unwrap_or_default();
        let step = match (slashed.next(), slashed.next()) {
            (_, Some(_)) => return Err("there is more than one slash".into()),
            (Some(step), None) => number(step)?,
            (None, None) => 1,
        };
        let stepped = part.contains('/');
        let ends: Vec<&str> = range.split('-').collect();
        let (first, mut last, mut star) = match ends.as_slice() {
            // Whatever follows a star is not looked at.
            ["*" | "?", ..] => (self.least, self.most, STAR),
            [only] => (self.value(only)?, self.value(only)?, 0),
            [first, last] => (self.value(first)?, self.value(last)?, 0),
            _ => return Err("there is more than one hyphen".into()),
        };
        if stepped && ends.len() == 1 {
            last = self.most;
        }
        if step > 1 {
            star = 0;
        }
        if step == 0 {
            return Err("a step is at least 1".into());
        }
        if first < self.least || last > self.most {
            return Err(format!("it lies between {} and {}", self.least, self.most));
        }
        if first > last {
            return Err("the range ends before it begins".into());
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        Ok((first..=last).step_by(step).fold(star, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().zip(self.least..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        match named {
            Some((_, value)) => Ok(value),
            None => number(text),
        }
    }
}

/// As Go's Atoi reads it, which takes a sign; a number larger than any field is as wrong as any other.
fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no number"));
    }
    if digits.trim_start_matches('0').len() > 18 {
        return Err(format!("{text:?} is too large"));
    }
    Ok(digits.parse().unwrap_or(u32::MAX))
}

impl Schedule {
    /// Reads five fields or one of the known words.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.contains("TZ") {
            return Err(ScheduleError::Zone);
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => return Err(ScheduleError::Word(word.to_owned())),
            fields => fields,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields(fields.len()));
        };
        Ok(Schedule {
            minute: MINUTE.bits(minute)?,
            hour: HOUR.bits(hour)?,
            day: DAY.bits(day)?,
            month: MONTH.bits(month)?,
            weekday: WEEKDAY.bits(weekday)?,
        })
    }

    /// The first moment after `after` at which it is due; None when there is none within five years.
    ///
    /// The fields are matched from the month down, as a clock on the wall of `zone` shows them, and each mismatch moves that
    /// clock on by one of what does not match: this is what decides which hours around a change of the clock are met.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut clock = Clock { second: after.as_second() + 1, zone, known: Cell::new((0, 0, 0)) };
        // A part of a second already counts as the second after it.
        if after.subsec_nanosecond() < 0 {
            clock.second -= 1;
        }
        let last_year = clock.wall().year + 5;
        let mut moved = false;
        'again: while clock.wall().year <= last_year {
            while !bit(self.month, clock.wall().month) {
                if !std::mem::replace(&mut moved, true) {
                    let wall = clock.wall();
                    clock.set(wall.year, wall.month, 1, 0);
                }
                let wall = clock.wall();
                clock.set(wall.year, wall.month + 1, wall.day, wall.time());
                if clock.wall().month == 1 {
                    continue 'again;
                }
            }
            while !self.day_matches(&clock.wall()) {
                if !std::mem::replace(&mut moved, true) {
                    let wall = clock.wall();
                    clock.set(wall.year, wall.month, wall.day, 0);
                }
                let wall = clock.wall();
                clock.set(wall.year, wall.month, wall.day + 1, wall.time());
                // Where midnight does not exist the day begins an hour late, or its eve is met.
                match clock.wall().hour {
                    hour @ 13.. => clock.second += (24 - hour) * 3600,
                    hour => clock.second -= hour * 3600,
                }
                if clock.wall().day == 1 {
                    continue 'again;
                }
            }
            while !bit(self.hour, clock.wall().hour) {
                if !moved {
                    moved = true;
                    let wall = clock.wall();
                    clock.set(wall.year, wall.month, wall.day, wall.hour * 3600);
                }
                clock.second += 3600;
                if clock.wall().hour == 0 {
                    continue 'again;
                }
            }
            while !bit(self.minute, clock.wall().minute) {
                if !moved {
                    moved = true;
                    clock.second = clock.second.div_euclid(60) * 60;
                }
                clock.second += 60;
                if clock.wall().minute == 0 {
                    continue 'again;
                }
            }
            while clock.wall().second != 0 {
                moved = true;
                clock.second += 1;
                if clock.wall().second == 0 {
                    continue 'again;
                }
            }
            return Timestamp::from_second(clock.second).ok();
        }
        None
    }

    /// The last moment at or before `at` at which it was due; None when there is none within five years.
    pub fn most_recent(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        const HOUR: i64 = 3600;
        for back in [HOUR, 25 * HOUR, 32 * 24 * HOUR, 367 * 24 * HOUR, 5 * 366 * 24 * HOUR] {
            let from = Timestamp::from_second(at.as_second() - back).ok()?;
            if let Some(last) = self.between(from, at, zone).last() {
                return Some(last);
            }
        }
        None
    }

    /// The moments after `after`, up to and with `until`, at which it is due.
    pub fn between<'a>(
        &'a self,
        after: Timestamp,
        until: Timestamp,
        zone: &'a TimeZone,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        std::iter::successors(self.next(after, zone), move |last| self.next(*last, zone))
            .take_while(move |due| *due <= until)
    }

    /// The least time between two of its next runs, in seconds; None when there are not two.
    pub fn period(&self, from: Timestamp, zone: &TimeZone) -> Option<i64> {
        let due: Vec<Timestamp> =
            std::iter::successors(self.next(from, zone), |last| self.next(*last, zone)).take(5).collect();
        due.windows(2).map(|pair| pair[1].as_second() - pair[0].as_second()).min()
    }

    fn day_matches(&self, wall: &Wall) -> bool {
        let (day, weekday) = (bit(self.day, wall.day), bit(self.weekday, wall.weekday));
        if (self.day | self.weekday) & STAR != 0 { day && weekday } else { day || weekday }
    }
}

fn bit(bits: u64, value: i64) -> bool {
    bits >> value & 1 == 1
}

/// A moment, in seconds since 1970, and the zone whose clocks are looked at.
struct Clock<'a> {
    second: i64,
    zone: &'a TimeZone,
    /// From when until when which offset counts: between two changes of the clock it need not be looked up again.
    known: Cell<(i64, i64, i64)>,
}

/// What a clock on the wall shows.
struct Wall {
    year: i64,
    month: i64,
    day: i64,
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Wall {
    fn time(&self) -> i64 {
        self.hour * 3600 + self.minute * 60 + self.second
    }
}

impl Clock<'_> {
    fn offset(&self, second: i64) -> i64 {
        let (from, until, offset) = self.known.get();
        if (from..until).contains(&second) {
            return offset;
        }
        let Ok(at) = Timestamp::from_second(second) else { return 0 };
        let offset = i64::from(self.zone.to_offset(at).seconds());
        let until = self.zone.following(at).next().map_or(i64::MAX, |change| change.timestamp().as_second());
        self.known.set((second, until, offset));
        offset
    }

    fn wall(&self) -> Wall {
        let local = self.second + self.offset(self.second);
        let (days, time) = (local.div_euclid(86400), local.rem_euclid(86400));
        let (year, month, day) = date(days);
        Wall {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7),
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }

    /// Sets it to what the wall should show; a month 13 or a day 32 runs over into the next. Of a time that does not exist,
    /// or exists twice, the one is taken that Go's time.Date takes: the offset is looked up as if the wall showed UTC, and
    /// once more with what that gave.
    fn set(&mut self, year: i64, month: i64, day: i64, time: i64) {
        let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
        let local = days(year, month) + day - 1;
        let local = local * 86400 + time;
        let guess = local - self.offset(local);
        self.second = local - self.offset(guess);
    }
}

/// Days from 1970 to the first of a month, in the Gregorian calendar; years begin in March, so that the odd day is the last.
fn days(year: i64, month: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date so many days after 1970 began.
fn date(days_since: i64) -> (i64, i64, i64) {
    let days_since = days_since + 719_468;
    let (era, of_era) = (days_since.div_euclid(146_097), days_since.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month < 3), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let due = Schedule::parse(schedule).unwrap().next(at(after), &zone);
        due.map_or("never".into(), |due| due.to_string())
    }

    #[test]
    fn days_and_dates_are_the_inverse_of_each_other() {
        for day in (-800_000..800_000).step_by(7) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month) + of_month - 1, day);
        }
        assert_eq!(date(0), (1970, 1, 1));
    }

    #[test]
    fn an_hour_that_the_clock_skips_is_skipped_and_one_that_it_repeats_comes_twice() {
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin"), "2026-03-30T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin"), "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z", "Europe/Berlin"), "2026-10-25T01:30:00Z");
    }

    #[test]
    fn a_star_asks_for_both_days_and_a_list_for_either() {
        assert_eq!(next("0 0 13 * 5", "2026-01-01T00:00:00Z", "UTC"), "2026-01-02T00:00:00Z");
        assert_eq!(next("0 0 13 * ?", "2026-01-01T00:00:00Z", "UTC"), "2026-01-13T00:00:00Z");
        assert_eq!(next("0 0 */2 * 5", "2026-01-01T00:00:00Z", "UTC"), "2026-01-02T00:00:00Z");
    }

    #[test]
    fn a_date_that_no_year_has_never_comes() {
        assert_eq!(next("0 0 30 2 *", "2026-01-01T00:00:00Z", "UTC"), "never");
        assert_eq!(next("0 0 29 2 *", "2026-01-01T00:00:00Z", "UTC"), "2028-02-29T00:00:00Z");
    }

    #[test]
    fn a_part_of_a_second_is_before_the_next_one() {
        assert_eq!(next("* * * * *", "2026-01-01T00:00:59.999Z", "UTC"), "2026-01-01T00:01:00Z");
        assert_eq!(next("* * * * *", "2026-01-01T00:01:00Z", "UTC"), "2026-01-01T00:02:00Z");
        assert_eq!(next("* * * * *", "1969-12-31T23:59:59.5Z", "UTC"), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn the_last_due_moment_is_found_however_long_ago() {
        let last = |schedule: &str, moment: &str| {
            let schedule = Schedule::parse(schedule).unwrap();
            schedule.most_recent(at(moment), &TimeZone::UTC).map(|due| due.to_string())
        };
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(last("*/5 * * * *", "2026-01-01T00:07:00Z"), found("2026-01-01T00:05:00Z"));
        assert_eq!(last("*/5 * * * *", "2026-01-01T00:05:00Z"), found("2026-01-01T00:05:00Z"));
        assert_eq!(last("@yearly", "2026-12-31T00:00:00Z"), found("2026-01-01T00:00:00Z"));
        assert_eq!(last("0 0 29 2 *", "2027-12-31T00:00:00Z"), found("2024-02-29T00:00:00Z"));
        assert_eq!(last("0 0 30 2 *", "2027-12-31T00:00:00Z"), None);
    }

    #[test]
    fn what_a_cronjob_refuses_is_refused_with_the_field_that_is_wrong() {
        for (text, word) in [
            ("", "five fields"),
            ("* * * *", "five fields"),
            ("* * * * * *", "five fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * 13 *", "month"),
            ("* * * okt *", "month"),
            ("* * * * 7", "day of week"),
            ("5-1 * * * *", "ends before"),
            ("1-2-3 * * * *", "hyphen"),
            ("*/2/3 * * * *", "slash"),
            ("*/0 * * * *", "step"),
            ("-1 * * * *", "no number"),
            ("@every 1h", "unknown"),
            ("TZ=UTC * * * * *", "timeZone"),
        ] {
            let error = Schedule::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
