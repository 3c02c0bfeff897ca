//! What was last said of each task. One controller works at a time, and nobody else says anything of a task: so its own last
//! word is the truth, however late a watch brings it back, and no run is counted twice.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::super::task::InspectionTaskStatus;
use super::seen::Key;
use super::watched::Task;

/// A status, packed, with the uid of the task that it was said of.
type Word = (String, Box<[u8]>);

/// The statuses.
#[derive(Default)]
pub struct Spoken(Mutex<HashMap<Key, Word>>);

impl Spoken {
    /// A task came: what stands in it was said before this process began, unless it has said something of it itself.
    pub fn meet(&self, task: &Task) {
        let Some((key, uid)) = super::seen::Watched::belongs(task).zip(task.metadata.uid.clone()) else {
            return;
        };
        let mut all = self.0.lock();
        if all.get(&key).is_none_or(|(known, _)| *known != uid) {
            let packed = serde_json::to_vec(&task.status).unwrap_or_default();
            all.insert(key, (uid, packed.into_boxed_slice()));
        }
    }

    /// What was last said of a task.
    pub fn last(&self, key: &Key) -> Option<InspectionTaskStatus> {
        let all = self.0.lock();
        // What can't be read was said by a later program; it is said anew.
        serde_json::from_slice(&all.get(key)?.1).ok().flatten()
    }

    /// `status` was said of the task.
    pub fn say(&self, key: &Key, uid: &str, status: &InspectionTaskStatus) {
        if let Ok(packed) = serde_json::to_vec(status) {
            self.0.lock().insert(key.clone(), (uid.to_owned(), packed.into_boxed_slice()));
        }
    }

    /// The task went.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn its_own_last_word_counts_until_another_task_has_the_name() {
        let task = |uid: &str, missed: u64| -> Task {
            serde_json::from_value(json!({
                "metadata": { "name": "check", "namespace": "shop", "uid": uid },
                "spec": {}, "status": { "missedRuns": missed },
            }))
            .unwrap()
        };
        let (spoken, key) = (Spoken::default(), Key::new("shop", "check"));
        spoken.meet(&task("one", 3));
        assert_eq!(spoken.last(&key).unwrap().missed_runs, 3);
        spoken.say(&key, "one", &InspectionTaskStatus { missed_runs: 4, ..Default::default() });
        // A watch brings back what was so before.
        spoken.meet(&task("one", 3));
        assert_eq!(spoken.last(&key).unwrap().missed_runs, 4);
        spoken.meet(&task("two", 0));
        assert_eq!(spoken.last(&key).unwrap().missed_runs, 0);
        spoken.forget(&key);
        assert_eq!(spoken.last(&key), None);
    }
}
