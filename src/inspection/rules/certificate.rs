//! What a certificate says, and whether it is still good.

use serde_json::{Value as Json, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::sight::{Blind, Verdict};
use super::wire::Presented;

/// A certificate that ends sooner than this fails by default, in seconds: fourteen days.
pub const SOON: i64 = 14 * 86_400;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// Its first second, since 1970.
    pub not_before: i64,
    /// Its last second, since 1970.
    pub not_after: i64,
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
}

impl Certificate {
    /// Reads the DER form.
    pub fn parse(der: &[u8]) -> Result<Self, Blind> {
        let bad =
            |what: String| Blind::new("BadCertificate", format!("the certificate can't be read: {what}"));
        let (_, read) = X509Certificate::from_der(der).map_err(|error| bad(error.to_string()))?;
        let names = match read.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(name).take(50).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            names,
        })
    }

    /// As CEL sees it.
    pub fn json(&self, now: jiff::Timestamp) -> Json {
        let time =
            |second| jiff::Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default();
        json!({
            "notBefore": time(self.not_before), "notAfter": time(self.not_after),
            "daysLeft": (self.not_after - now.as_second()).div_euclid(86_400),
            "subject": self.subject, "issuer": self.issuer, "sans": self.names,
        })
    }

    /// Whether its time is over, or soon.
    pub fn verdict(&self, now: jiff::Timestamp) -> Verdict {
        let left = self.not_after - now.as_second();
        let days = left.div_euclid(86_400);
        if self.not_before > now.as_second() {
            return Verdict::fail(
                "CertificateNotYetValid",
                "the certificate is not valid yet: is a clock wrong?",
            );
        }
        match left {
            ..0 => Verdict::fail(
                "CertificateExpired",
                format!("the certificate of {} has expired", self.subject),
            ),
            0..SOON => Verdict::fail(
                "CertificateExpiring",
                format!("the certificate of {} ends in {days} days", self.subject),
            ),
            _ => Verdict::Pass,
        }
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
        },
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    }
}

/// What a server presented, as CEL sees it, and the default verdict: the chain holds and has more than fourteen days.
pub fn judge(presented: &Presented, now: jiff::Timestamp) -> Result<(Json, Verdict), Blind> {
    let first =
        presented.chain.first().ok_or_else(|| Blind::new("BadCertificate", "there is no certificate"))?;
    let certificate = Certificate::parse(first)?;
    let mut json = certificate.json(now);
    json["chainValid"] = presented.untrusted.is_none().into();
    json["chainError"] = presented.untrusted.clone().unwrap_or_default().into();
    json["tlsVersion"] = presented.version.clone().into();
    let own = certificate.verdict(now);
    let verdict = match &presented.untrusted {
        // An expired certificate breaks its chain too; its own reason says more.
        Some(why) if own == Verdict::Pass => Verdict::fail("CertificateUntrusted", why.clone()),
        _ => own,
    };
    Ok((json, verdict))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A certificate that ends so many days after `now`.
    fn made(days: i64, now: jiff::Timestamp) -> Certificate {
        let mut params = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        let end = now.as_second() + days * 86_400;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after =
            rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(end.try_into().unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        Certificate::parse(params.self_signed(&key).unwrap().der()).unwrap()
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Fail(finding) => finding.reason,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_certificates_days_are_counted() {
        let now: jiff::Timestamp = "2026-09-01T00:00:00Z".parse().unwrap();
        let good = made(90, now);
        assert_eq!(
            (good.names.as_slice(), good.verdict(now)),
            (&["db.example".to_owned()][..], Verdict::Pass)
        );
        assert_eq!(good.json(now)["daysLeft"], 90);
        assert_eq!(reason(made(13, now).verdict(now)), "CertificateExpiring");
        assert_eq!(reason(made(-1, now).verdict(now)), "CertificateExpired");
        assert!(Certificate::parse(b"none").is_err());
    }
}
