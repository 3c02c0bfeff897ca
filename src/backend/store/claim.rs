//! Whose a volume is.

use super::Store;
use crate::backend::ExpandError;
use crate::volume::{Claim, Key};

impl Store {
    /// Writes into the volume's record whose it is now; whether that was news.
    pub(super) fn claim(&self, key: Key, claim: Claim) -> Result<bool, ExpandError> {
        let trees = self.trees()?.ok_or(ExpandError::NotFound)?;
        let is_news = |held: &Option<Claim>| held.as_ref() != Some(&claim);
        // Without the lock at first: it mostly is none, and there may be thousands of volumes.
        let record = self.record(&trees, key)?.ok_or(ExpandError::NotFound)?;
        if !is_news(&record.claim) {
            return Ok(false);
        }
        let _lock = self.lock(&trees, key)?;
        let mut record = self.record(&trees, key)?.ok_or(ExpandError::NotFound)?;
        let news = is_news(&record.claim);
        if news {
            record.claim = Some(claim);
            self.replace(&trees, &record)?;
        }
        Ok(news)
    }
}
