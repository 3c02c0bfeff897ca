//! A volume's size in bytes, from the range that the request gives.

use std::fmt;

/// The size of a volume for which nobody asked for one: 1 GiB, in bytes.
pub const DEFAULT_CAPACITY: u64 = 1 << 30;

/// A size range as a request gives it: at least, at most; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    required: Option<u64>,
    limit: Option<u64>,
}

/// Why a range is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// A negative number of bytes.
    #[error("{field} is {bytes}; a size can't be negative")]
    Negative {
        /// Which of the two.
        field: &'static str,
        /// What it says.
        bytes: i64,
    },
    /// Nothing lies in the range.
    #[error("required_bytes is {required} and limit_bytes {limit}: no size is both")]
    Empty {
        /// At least so many bytes.
        required: u64,
        /// At most so many bytes.
        limit: u64,
    },
    /// Neither bound is set, where one is needed.
    #[error("the capacity range names no size")]
    Missing,
}

impl Capacity {
    /// Reads `CapacityRange.required_bytes` and `.limit_bytes`, of which 0 means "not set" (CSI specification).
    pub fn parse(required: i64, limit: i64) -> Result<Self, CapacityError> {
        let field = |field, bytes: i64| match u64::try_from(bytes) {
            Ok(0) => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(CapacityError::Negative { field, bytes }),
        };
        let range =
            Self { required: field("required_bytes", required)?, limit: field("limit_bytes", limit)? };
        match (range.required, range.limit) {
            (Some(required), Some(limit)) if required > limit => {
                Err(CapacityError::Empty { required, limit })
            }
            _ => Ok(range),
        }
    }

    /// The size to make: what is required, else what fits under the limit.
    pub fn bytes(&self) -> u64 {
        self.required.unwrap_or_else(|| DEFAULT_CAPACITY.min(self.limit.unwrap_or(u64::MAX)))
    }

    /// The size to grow to, which the request must name.
    pub fn wanted(&self) -> Result<u64, CapacityError> {
        self.required.or(self.limit).ok_or(CapacityError::Missing)
    }

    /// Whether a volume of `bytes` is what this range asks for.
    pub fn admits(&self, bytes: u64) -> bool {
        self.required.is_none_or(|least| bytes >= least) && self.limit.is_none_or(|most| bytes <= most)
    }

    /// The upper bound, where there is one.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.required, self.limit) {
            (None, None) => f.write_str("any size"),
            (Some(least), None) => write!(f, "at least {least} bytes"),
            (None, Some(most)) => write!(f, "at most {most} bytes"),
            (Some(least), Some(most)) => write!(f, "{least} to {most} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_what_is_made() {
        assert_eq!(Capacity::parse(5, 9).unwrap().bytes(), 5);
        assert_eq!(Capacity::parse(0, 9).unwrap().bytes(), 9);
        assert_eq!(Capacity::parse(0, 0).unwrap().bytes(), DEFAULT_CAPACITY);
    }

    #[test]
    fn an_impossible_range_is_refused() {
        assert_eq!(Capacity::parse(2, 1), Err(CapacityError::Empty { required: 2, limit: 1 }));
        assert!(matches!(Capacity::parse(-1, 0), Err(CapacityError::Negative { .. })));
        assert!(matches!(Capacity::parse(0, i64::MIN), Err(CapacityError::Negative { .. })));
    }

    #[test]
    fn growing_needs_a_size() {
        assert_eq!(Capacity::parse(0, 0).unwrap().wanted(), Err(CapacityError::Missing));
    }
}
