//! How values of flags are read: times, sizes and pairs.

use std::fmt;
use std::time::Duration;

/// `key=value`. Its `Debug` keeps the value to itself, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// What stands before the first `=`; not empty.
    pub key: String,
    /// What stands behind it.
    pub value: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

impl std::str::FromStr for Pair {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("it must be KEY=VALUE"),
        }
    }
}

/// Ten years. A longer time is a slip, and would not fit where times are added to the clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads a time as Kubernetes writes it: `90s`, `250ms`, `1h30m`; `d` for days. Alone, 0 needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "a time looks like 30s, 10m, 24h or 1h30m";
    let mut total = Duration::ZERO;
    let mut rest = if text == "0" { "0s" } else { text };
    if rest.is_empty() {
        return Err(WRONG);
    }
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?);
        let (unit, behind) =
            behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(WRONG),
        };
        let part = number.parse::<u64>().map_err(|_| WRONG)?.saturating_mul(milliseconds);
        total = total.saturating_add(Duration::from_millis(part));
        rest = behind;
    }
    if total <= LONGEST { Ok(total) } else { Err("a time is ten years at most") }
}

/// Reads a size: `4GiB` or, as Kubernetes writes it, `4Gi`; `4G` and `4GB` count in thousands.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        _ => Err("a size looks like 4GiB, 512MiB or 4Gi, and is more than 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_kubernetes_writes_them() {
        for (text, seconds) in
            [("30s", 30), ("10m", 600), ("24h", 86_400), ("1h30m", 5_400), ("2d", 172_800), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in
            ["", "5", "s", "1.5h", "-1s", "1 h", "1y", "99999999999999999999s", "9999999999999h", "5s5"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_spellings() {
        assert_eq!((size("4GiB"), size("4Gi"), size("4G")), (Ok(4 << 30), Ok(4 << 30), Ok(4_000_000_000)));
        for text in ["", "0", "-1", "much"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_keeps_its_value_to_itself() {
        let pair: Pair = "token=a=b".parse().unwrap();
        assert_eq!((pair.key.as_str(), pair.value.as_str()), ("token", "a=b"));
        assert_eq!(format!("{pair:?}"), "token=…");
        assert!("=x".parse::<Pair>().is_err() && "x".parse::<Pair>().is_err());
    }
}
