//! What the steps of a pipeline return.

use lbr_common::verdict::{Effect, Verdict};

/// A step that is a function of its own (not inlined) returns a bare [`Verdict`], because BTF, which the kernel
/// wants of every function, has no form for Rust's `Result`. This one, like all that translate, means "go on".
pub(crate) const DONE: Verdict = Verdict::ToBackend;

/// Such a step's verdict, as the pipelines want it.
#[inline(always)]
pub(crate) fn check(verdict: Verdict) -> Result<(), Verdict> {
    if matches!(verdict.effect(), Effect::Translate) { Ok(()) } else { Err(verdict) }
}
