//! The steps of a pipeline: what they return, and how the verifier is made to look at each of them once.

use lbr_common::verdict::{Effect, Verdict};

/// A step that is a function of its own (not inlined) returns a bare [`Verdict`], because BTF, which the kernel
/// wants of every function, has no form for Rust's `Result`. This one, like all that translate, means "go on".
pub(crate) const DONE: Verdict = Verdict::ToBackend;

/// Such a step's verdict, as the pipelines want it.
#[inline(always)]
pub(crate) fn check(verdict: Verdict) -> Result<(), Verdict> {
    if matches!(verdict.effect(), Effect::Translate) { Ok(()) } else { Err(verdict) }
}

/// Makes a step a *global function* in BPF's sense. The verifier checks a global function once for each program,
/// with nothing known of its arguments; it walks through any other function anew on each path that calls it, and the
/// paths multiply.
///
/// A global function takes the context of the program and numbers, but no pointer whose target is a map's key on
/// Linux 6.1 (later kernels accept that: 9ef40974a82a). So the step looks up the work space of this CPU again instead of
/// taking it as an argument; it is the caller's `work`.
///
/// ```ignore
/// step::global! {
///     /// Documentation.
///     pub(crate) fn name(skb: Skb, work: &mut Scratch, number: u32) -> Verdict = function as name_in_the_kernel;
/// }
///
/// #[inline(always)]
/// fn function(skb: Skb, work: &mut Scratch, number: u32) -> Verdict { ... }
/// ```
macro_rules! global {
    ($(#[$doc:meta])* $vis:vis fn $name:ident(skb: Skb, work: &mut Scratch $(, $arg:ident: $type:ty)*) -> Verdict
        = $body:ident as $global:ident;) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name(skb: $crate::skb::Skb, work: &mut $crate::scratch::Scratch $(, $arg: $type)*) -> Verdict {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global(context: *mut aya_ebpf::bindings::__sk_buff $(, $arg: $type)*) -> u32 {
                let Some(work) = $crate::scratch::Scratch::get() else { return Verdict::NotJudged as u32 };
                $body($crate::skb::Skb::new(context), work $(, $arg)*) as u32
            }

            $crate::step::lend(work);
            $crate::step::verdict($global(skb.context() $(, $arg)*))
        }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident(work: &mut Scratch $(, $arg:ident: $type:ty)*) -> Verdict
        = $body:ident as $global:ident;) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name(work: &mut $crate::scratch::Scratch $(, $arg: $type)*) -> Verdict {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global($($arg: $type),*) -> u32 {
                let Some(work) = $crate::scratch::Scratch::get() else { return Verdict::NotJudged as u32 };
                $body(work $(, $arg)*) as u32
            }

            $crate::step::lend(work);
            $crate::step::verdict($global($($arg),*))
        }
    };
}
pub(crate) use global;

/// Tells the compiler that the function which is called next reads and writes the work space, although it gets no
/// pointer to it.
#[inline(always)]
pub(crate) fn lend(work: &mut crate::scratch::Scratch) {
    core::hint::black_box(core::ptr::from_mut(work));
}

/// The verdict that a global function returns as a number.
#[inline(always)]
pub(crate) fn verdict(number: u32) -> Verdict {
    // SAFETY: every caller passes what was made of a verdict by `as u32`.
    unsafe { core::mem::transmute::<u8, Verdict>(number as u8) }
}
