//! The steps of a pipeline: what they return, and how the verifier is made to look at each of them once.

use lbr_common::verdict::Verdict;

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
/// A step borrows what it reads (`&`) and what it writes (`&mut`): parts of the work space, by the names of their fields
/// in `Scratch`. A global function takes the context of the program and numbers, but no pointer whose target is a map's
/// key on Linux 6.1 (later kernels accept that: 9ef40974a82a). So it looks these parts up again. They are the ones that
/// its caller lends, since each part has a type of its own, and no value of it lies anywhere else. Without a work
/// space the packet is dropped.
///
/// ```ignore
/// step::global! {
///     /// Documentation. Numbers follow the parts.
///     pub(crate) fn name(skb: Skb, packet: &Packet, query: &mut Query; number: u32) -> Step
///         = function as name_in_the_kernel;
/// }
///
/// #[inline(always)]
/// fn function(skb: Skb, packet: &Packet, query: &mut Query, number: u32) -> Step { ... }
/// ```
macro_rules! global {
    ($(#[$doc:meta])* $vis:vis fn $name:ident(
        skb: Skb, $($part:ident: $type:ty),+ $(; $($number:ident: $kind:ty),+)?
    ) -> $result:ident = $body:ident as $global:ident;) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name(
            skb: $crate::packet::skb::Skb,
            $($part: $type,)+
            $($($number: $kind),+)?
        ) -> $crate::step::$result {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global(
                context: *mut aya_ebpf::bindings::__sk_buff,
                $($($number: $kind),+)?
            ) -> u32 {
                let skb = $crate::packet::skb::Skb::new(context);
                let result: $crate::step::$result = match $crate::scratch::Scratch::get() {
                    Some($crate::scratch::Scratch { $($part,)+ .. }) => $body(skb, $($part,)+ $($($number),+)?),
                    None => Err(lbr_common::verdict::Verdict::NotJudged),
                };
                $crate::step::Encoded::encode(result)
            }

            // What the step says that it borrows is what its body gets.
            const _: fn($crate::packet::skb::Skb, $($type,)+ $($($kind),+)?) -> $crate::step::$result = $body;
            $($crate::step::lend!($part);)+
            $crate::step::Encoded::decode($global(skb.context(), $($($number),+)?))
        }
    };
    ($(#[$doc:meta])* $vis:vis fn $name:ident(
        $($part:ident: $type:ty),+ $(; $($number:ident: $kind:ty),+)?
    ) -> $result:ident = $body:ident as $global:ident;) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name($($part: $type,)+ $($($number: $kind),+)?) -> $crate::step::$result {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $global($($($number: $kind),+)?) -> u32 {
                let result: $crate::step::$result = match $crate::scratch::Scratch::get() {
                    Some($crate::scratch::Scratch { $($part,)+ .. }) => $body($($part,)+ $($($number),+)?),
                    None => Err(lbr_common::verdict::Verdict::NotJudged),
                };
                $crate::step::Encoded::encode(result)
            }

            // What the step says that it borrows is what its body gets.
            const _: fn($($type,)+ $($($kind),+)?) -> $crate::step::$result = $body;
            $($crate::step::lend!($part);)+
            $crate::step::Encoded::decode($global($($($number),+)?))
        }
    };
}
pub(crate) use global;

/// Lends a part of the work space to the function that is called next, by the name of its field.
macro_rules! lend {
    ($part:ident) => {
        $crate::step::lend_at($part, core::mem::offset_of!($crate::scratch::Scratch, $part))
    };
}
pub(crate) use lend;

/// Tells the compiler that the function which is called next reads and writes this part, although it gets no pointer to
/// it. The compiler has to assume that of all that it shows to assembly.
///
/// What is shown is where the work space begins, as an address that follows from the part's: that one is in a register
/// anyhow. The assembly has no text, so the register has to be a certain one: of any text, the compiler would note the
/// source line, and the kernel refuses two lines for one instruction.
#[inline(always)]
pub(crate) fn lend_at<T>(part: *const T, offset: usize) {
    let work = part.wrapping_byte_sub(offset);
    // SAFETY: there is no instruction.
    unsafe { core::arch::asm!("", in("r5") work, options(nostack, preserves_flags)) };
}
