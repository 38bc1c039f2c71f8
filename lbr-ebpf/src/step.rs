//! The steps of a pipeline: what they return, and how the verifier is made to look at each of them once.

use lbr_common::verdict::Verdict;

use crate::scratch::Scratch;

/// What a step returns that goes on, or ends the pipeline with a verdict.
pub(crate) type Step = Result<(), Verdict>;

/// What a step returns that looks for something, and may not find it.
pub(crate) type Found = Result<bool, Verdict>;

/// The result of a step as a number: BTF, which the kernel wants of every function, has no form for `Result`.
pub(crate) trait Encoded {
    fn encode(self) -> u32;
    fn decode(number: u32) -> Self;
}

/// Numbers below stand for the results that are no verdict.
const VERDICTS: u32 = 2;

/// The verdict that a global function gets or returns as a number.
#[inline(always)]
pub(crate) fn verdict(number: u32) -> Verdict {
    // SAFETY: every caller passes what was made of a verdict by `as u32`.
    unsafe { core::mem::transmute::<u8, Verdict>(number as u8) }
}

impl Encoded for Step {
    #[inline(always)]
    fn encode(self) -> u32 {
        match self {
            Ok(()) => 0,
            Err(verdict) => VERDICTS + verdict as u32,
        }
    }

    #[inline(always)]
    fn decode(number: u32) -> Self {
        if number == 0 { Ok(()) } else { Err(verdict(number.wrapping_sub(VERDICTS))) }
    }
}

impl Encoded for Found {
    #[inline(always)]
    fn encode(self) -> u32 {
        match self {
            Ok(found) => found as u32,
            Err(verdict) => VERDICTS + verdict as u32,
        }
    }

    #[inline(always)]
    fn decode(number: u32) -> Self {
        if number < VERDICTS { Ok(number == 1) } else { Err(verdict(number.wrapping_sub(VERDICTS))) }
    }
}

/// Makes a step a *global function* in BPF's sense. The verifier checks a global function once for each program,
/// with nothing known of its arguments; it walks through any other function anew on each path that calls it, and the
/// paths multiply.
///
/// A global function takes the context of the program and numbers, but no pointer whose target is a map's key on
/// Linux 6.1 (later kernels accept that: 9ef40974a82a). So the step looks up the work space of this CPU again instead of
/// taking it as an argument; it is the caller's `work`. Without a work space the packet is dropped.
///
/// ```ignore
/// step::global! {
///     /// Documentation.
///     pub(crate) fn name(skb: Skb, work: &mut Scratch, number: u32) -> Step = function as name_in_the_kernel;
/// }
///
/// #[inline(always)]
/// fn function(skb: Skb, work: &mut Scratch, number: u32) -> Step { ... }
/// ```
macro_rules! global {
    ($(#[$doc:meta])* $vis:vis fn $name:ident(skb: Skb, work: &mut Scratch $(, $arg:ident: $type:ty)*) -> $result:ident
        = $body:ident as $global:ident;) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name(
            skb: $crate::packet::skb::Skb,
            work: &mut $crate::scratch::Scratch
            $(, $arg: $type)*
        ) -> $crate::step::$result {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global(context: *mut aya_ebpf::bindings::__sk_buff $(, $arg: $type)*) -> u32 {
                let skb = $crate::packet::skb::Skb::new(context);
                let result: $crate::step::$result = match $crate::scratch::Scratch::get() {
                    Some(work) => $body(skb, work $(, $arg)*),
                    None => Err(lbr_common::verdict::Verdict::NotJudged),
                };
                $crate::step::Encoded::encode(result)
            }

            $crate::step::lend(work);
            $crate::step::Encoded::decode($global(skb.context() $(, $arg)*))
        }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident(work: &mut Scratch $(, $arg:ident: $type:ty)*) -> $result:ident
        = $body:ident as $global:ident;) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name(work: &mut $crate::scratch::Scratch $(, $arg: $type)*) -> $crate::step::$result {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global($($arg: $type),*) -> u32 {
                let result: $crate::step::$result = match $crate::scratch::Scratch::get() {
                    Some(work) => $body(work $(, $arg)*),
                    None => Err(lbr_common::verdict::Verdict::NotJudged),
                };
                $crate::step::Encoded::encode(result)
            }

            $crate::step::lend(work);
            $crate::step::Encoded::decode($global($($arg),*))
        }
    };
}
pub(crate) use global;

/// Tells the compiler that the function which is called next reads and writes the work space, although it gets no
/// pointer to it.
#[inline(always)]
pub(crate) fn lend(work: &mut Scratch) {
    core::hint::black_box(core::ptr::from_mut(work));
}
