//! The frame of every page: its head, its policy, the choice of its language.
//!
//! Without a script and without a request: the policy in its head forbids both, so that even text which got past the
//! escaping would stay text. The language is switched by two radio buttons and the style alone.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::words::Language;
use crate::inspection::run::Outcome;

/// The style of all pages.
pub const STYLE: &str = include_str!("style.css");

/// The policy of all pages: nothing is loaded, nothing runs, and this one style alone counts.
pub fn policy() -> String {
    let digest = base64(&Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'self'"
    )
}

/// Base64, as a policy writes a digest.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        for at in 0..4 {
            let sign = if at <= group.len() { char::from(SIGNS[number >> (18 - 6 * at) & 63]) } else { '=' };
            text.push(sign);
        }
    }
    text
}

/// A page around `body`: its head, its policy, and the choice of its language.
pub fn page(language: Language, title: &str, mark: Option<Outcome>, nav: Markup, body: Markup) -> String {
    let checked = |this| language == this;
    let page = html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width,initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                link rel="icon" href=(icon(mark));
                style { (PreEscaped(STYLE)) }
            }
            body {
                input class="tongue" type="radio" name="tongue" id="tongue-en" aria-label="English" checked[checked(Language::English)];
                input class="tongue" type="radio" name="tongue" id="tongue-zh" aria-label="中文" checked[checked(Language::Chinese)];
                div class="sheet" {
                    div class="mast" {
                        nav { (nav) }
                        div class="choice" {
                            label for="tongue-en" { "English" }
                            label for="tongue-zh" { "中文" }
                        }
                    }
                    (body)
                }
            }
        }
    };
    page.into_string()
}

/// A dot of the verdict's colour, for the tab.
fn icon(mark: Option<Outcome>) -> String {
    let colour = match mark {
        Some(Outcome::Pass) => "2f8f5b",
        Some(Outcome::Warn) => "c98a06",
        Some(Outcome::Fail) => "d13b33",
        Some(Outcome::Error) => "7a5bd0",
        Some(Outcome::Skip) | None => "8a939e",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        let known = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, coded) in known {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }
}
