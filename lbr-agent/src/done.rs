//! The result of a cleanup, for the command line to print.

/// The result, one text for each thing.
#[derive(Debug, Default)]
pub struct Done {
    /// Removed.
    pub removed: Vec<String>,
    /// Left in place although the operator may want it gone; the text says why, and what to do.
    pub left: Vec<String>,
    /// Notes for the operator.
    pub notes: Vec<String>,
    /// Failures. The rest was done all the same.
    pub errors: Vec<anyhow::Error>,
}

impl Done {
    /// Adds the result of another part, or its error.
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
