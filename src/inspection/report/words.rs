//! What the report says, in both of its languages, and how it writes times and lengths.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, Render, html};

/// The language a page opens in. Both stand in every page; the reader may switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese, in simplified characters.
    Chinese,
}

impl Language {
    /// Its BCP 47 tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-Hans",
        }
    }
}

/// The same thing said in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// In English.
    pub en: Cow<'static, str>,
    /// In Chinese.
    pub zh: Cow<'static, str>,
}

/// What stands in a page for good.
pub const fn said(en: &'static str, zh: &'static str) -> Text {
    Text { en: Cow::Borrowed(en), zh: Cow::Borrowed(zh) }
}

/// What is said with values in it.
pub fn told(en: String, zh: String) -> Text {
    Text { en: Cow::Owned(en), zh: Cow::Owned(zh) }
}

impl Text {
    /// In one of the languages.
    pub fn in_language(&self, language: Language) -> &str {
        match language {
            Language::English => &self.en,
            Language::Chinese => &self.zh,
        }
    }
}

impl Render for Text {
    fn render(&self) -> Markup {
        if self.en == self.zh {
            return html! { (self.en) };
        }
        html! { span lang="en" { (self.en) } span lang="zh-Hans" { (self.zh) } }
    }
}

/// How long something took: `840 ms`, `1.24 s`, `2 min 5 s`.
pub fn took(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{}.{:02} s", millis / 1_000, millis % 1_000 / 10),
        10_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

/// A length of time in its two largest units.
pub fn length(seconds: i64) -> Text {
    let units = [(86_400, "d", "天"), (3_600, "h", "小时"), (60, "min", "分钟"), (1, "s", "秒")];
    let seconds = seconds.max(0);
    let largest = units.iter().position(|(size, ..)| seconds >= *size).unwrap_or(units.len() - 1);
    let (mut en, mut zh, mut rest) = (String::new(), String::new(), seconds);
    for (size, short, chinese) in units.iter().skip(largest).take(2) {
        let count = rest / size;
        rest %= size;
        if count == 0 && !en.is_empty() {
            continue;
        }
        let gap = if en.is_empty() { "" } else { " " };
        en.push_str(&format!("{gap}{count} {short}"));
        zh.push_str(&format!("{gap}{count} {chinese}"));
    }
    told(en, zh)
}

/// A moment in the task's zone, to the minute: `2026-11-21 14:05`.
pub fn minute(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// A moment in the task's zone, to the second.
pub fn second(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A part of a whole in per cent, never rounded up to 100 nor down to 0: `99.97 %`.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    // In hundredths of a per cent, rounded down.
    let hundredths = (u128::from(part) * 10_000 / u128::from(whole)).max(u128::from(part > 0));
    let (before, after) = (hundredths / 100, hundredths % 100);
    Some(if after == 0 { format!("{before} %") } else { format!("{before}.{after:02} %") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_in_a_million_is_not_a_hundred_per_cent() {
        assert_eq!(percent(999_999, 1_000_000).unwrap(), "99.99 %");
        assert_eq!(percent(1, 1_000_000).unwrap(), "0.01 %");
        assert_eq!(percent(7, 7).unwrap(), "100 %");
        assert_eq!(percent(0, 0), None);
    }

    #[test]
    fn lengths_are_said_in_their_two_largest_units() {
        let said = |seconds| length(seconds).en.into_owned();
        assert_eq!(
            [0, 59, 60, 5_100, 86_400, 356_400].map(said),
            ["0 s", "59 s", "1 min", "1 h 25 min", "1 d", "4 d 3 h"]
        );
        assert_eq!(length(5_100).zh, "1 小时 25 分钟");
        assert_eq!([5, 1_249, 59_990, 61_000].map(took), ["5 ms", "1.24 s", "59.9 s", "1 min 1 s"]);
    }
}
