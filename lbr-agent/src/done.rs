//! What a cleaning up did, for the command line to print.

/// What was done, one text for each thing.
#[derive(Debug, Default)]
pub struct Done {
    /// Is gone.
    pub removed: Vec<String>,
    /// Stays although somebody may want it gone; the text says why, and what to do.
    pub left: Vec<String>,
    /// Good to know.
    pub notes: Vec<String>,
    /// What failed. The rest was done all the same.
    pub errors: Vec<anyhow::Error>,
}

impl Done {
    /// Adds what another part did, or why it failed.
    pub(crate) fn add(&mut self, part: anyhow::Result<Self>) {
        match part {
            Ok(part) => {
                self.removed.extend(part.removed);
                self.left.extend(part.left);
                self.notes.extend(part.notes);
                self.errors.extend(part.errors);
            }
            Err(error) => self.errors.push(error),
        }
    }
}
