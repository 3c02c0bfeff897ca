//! The nearest known word to one that was misspelt.

/// Longer words stand for none: nothing that is known comes near it, and comparing takes the square of the length.
const LONGEST: usize = 64;

/// The one of `known` that `word` most likely stood for, if any is near enough to be worth naming.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_ascii_lowercase()), candidate))
        // 0.8 keeps "servr" → "server" and drops what merely shares a few letters.
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(nearest("servr", ["server", "share"]), Some("server"));
        assert_eq!(nearest("ondelet", ["onDelete", "share"]), Some("onDelete"));
    }

    #[test]
    fn a_stranger_is_not() {
        assert_eq!(nearest("zzz", ["server", "share"]), None);
        assert_eq!(nearest(&"server".repeat(100_000), ["server", "share"]), None);
    }
}
