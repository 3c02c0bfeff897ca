//! The report in a real browser. Needs Chromium, which `tests/screenshots` says how to get; CHROMIUM names another one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use kuration::inspection::report::{Language, html};

use crate::{fixture, hostile};

/// An address of documentation (RFC 5737): nothing asks for it but the hostile texts.
const ELSEWHERE: &str = "198.51.100.1";

fn browser() -> PathBuf {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    named
        .into_iter()
        .chain(known.map(PathBuf::from))
        .find(|path| path.exists())
        .expect("no Chromium: apt install chromium, or CHROMIUM=/path/to/it")
}

/// A proxy that all of the browser's requests go to; what it was asked for.
fn proxy() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let mut part = [0; 2048];
            let length = stream.read(&mut part).unwrap_or(0);
            told.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..length]));
            drop(
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
            );
        }
    });
    (address, asked)
}

fn look(page: &Path, proxy: &str, flags: &[&str]) -> Vec<u8> {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--window-size=1060,1200"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--proxy-server=http://{proxy}"))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn in_a_browser_nothing_a_server_answered_runs_and_nothing_is_asked_for() {
    let (proxy, asked) = proxy();
    let place = tempfile::tempdir().unwrap();
    let control = place.path().join("control.html");
    std::fs::write(
        &control,
        format!("<img src=http://{ELSEWHERE}/seen><script>document.title='ran'</script>"),
    )
    .unwrap();
    let dom = String::from_utf8(look(&control, &proxy, &["--dump-dom"])).unwrap();
    assert!(
        dom.contains("<title>ran</title>") && asked.lock().unwrap().contains(ELSEWHERE),
        "the trap works"
    );
    asked.lock().unwrap().clear();

    let (_volume, shelf) = hostile::volume();
    let page = place.path().join("hostile.html");
    std::fs::write(&page, html(&shelf.history(None).unwrap(), Language::English)).unwrap();
    let dom = String::from_utf8(look(&page, &proxy, &["--dump-dom"])).unwrap();
    for element in ["<script", "<iframe", "<img", "<base", "<form", "<svg onload", "http-equiv=\"refresh\""] {
        assert!(!dom.contains(element), "{element} is in the page as the browser reads it");
    }
    assert!(dom.contains("&lt;script&gt;window.owned=1&lt;/script&gt;"), "it can be read");
    let asked = asked.lock().unwrap();
    assert!(!asked.contains(ELSEWHERE), "{asked}");
}

#[test]
fn themes_and_languages_differ_and_the_paper_is_a4() {
    let (proxy, _asked) = proxy();
    let place = tempfile::tempdir().unwrap();
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &fixture::database(240));
    let history = kuration::inspection::report::Shelf::open(&home).unwrap().history(None).unwrap();
    let mut pictures = Vec::new();
    for language in [Language::English, Language::Chinese] {
        let page = place.path().join("report.html");
        std::fs::write(&page, html(&history, language)).unwrap();
        for theme in ["--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"] {
            let picture = place.path().join("report.png");
            look(&page, &proxy, &[theme, &format!("--screenshot={}", picture.display())]);
            pictures.push(std::fs::read(&picture).unwrap());
        }
        let paper = place.path().join("report.pdf");
        look(&page, &proxy, &["--no-pdf-header-footer", &format!("--print-to-pdf={}", paper.display())]);
        let pdf = String::from_utf8_lossy(&std::fs::read(&paper).unwrap()).into_owned();
        assert!(
            pdf.contains("/MediaBox [0 0 595") || pdf.contains("/MediaBox [0 0 594"),
            "A4 is 595 by 842 points"
        );
    }
    for (at, one) in pictures.iter().enumerate() {
        assert!(one.len() > 30_000, "an empty page");
        assert!(pictures[at + 1..].iter().all(|other| other != one), "two of the four look the same");
    }
}
