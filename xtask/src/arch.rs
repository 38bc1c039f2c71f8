//! The architectures that lbr is built for, and their names in QEMU, Debian, container images and the compiler.

use std::path::Path;

use crate::machine::Tool;

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// 64-bit x86
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm
    Aarch64,
}

impl Arch {
    /// Its name in the compiler and the kernel.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// This machine's architecture, if lbr is built for it.
    pub(crate) fn own() -> Self {
        if Self::Aarch64.is_own() { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Whether it is this machine's.
    pub(crate) fn is_own(self) -> bool {
        self.name() == std::env::consts::ARCH
    }

    /// Its name in Debian's packages and container images.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The compiler's target triple.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The folder of libraries for this architecture, below `lib` and `usr/lib`.
    pub(crate) fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// The folder of the kernel's code for it, in `kernel/arch`.
    pub(crate) fn kernel_folder(self) -> &'static str {
        match self {
            Self::X86_64 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// Tools to build for it on a machine of another architecture.
    pub(crate) fn build_tools(self) -> Vec<Tool> {
        if self.is_own() { Vec::new() } else { self.compiler().to_vec() }
    }

    /// Tools to run guests, and to build for them.
    pub(crate) fn tools(self) -> Vec<Tool> {
        std::iter::once(self.emulator()).chain(self.build_tools()).collect()
    }

    /// The emulator.
    pub(crate) fn emulator(self) -> Tool {
        let why = "runs other kernels";
        match self {
            Self::X86_64 => Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", why },
            Self::Aarch64 => Tool { program: "qemu-system-aarch64", package: "qemu-system-arm", why },
        }
    }

    /// The compiler and linker of another architecture, and a file of its C library.
    fn compiler(self) -> [Tool; 2] {
        let why = "builds for another architecture";
        match self {
            Self::X86_64 => [
                Tool { program: "x86_64-linux-gnu-gcc", package: "gcc-x86-64-linux-gnu", why },
                Tool {
                    program: "/usr/x86_64-linux-gnu/include/stdio.h",
                    package: "libc6-dev-amd64-cross",
                    why,
                },
            ],
            Self::Aarch64 => [
                Tool { program: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu", why },
                Tool {
                    program: "/usr/aarch64-linux-gnu/include/stdio.h",
                    package: "libc6-dev-arm64-cross",
                    why,
                },
            ],
        }
    }

    /// The emulator's arguments for a machine of this architecture.
    pub(crate) fn machine(self, accel: Accel) -> &'static [&'static str] {
        match (self, accel) {
            (Self::X86_64, Accel::Kvm) => &["-accel", "kvm", "-cpu", "host"],
            // Five-level page tables only cost time in emulation.
            (Self::X86_64, Accel::Tcg) => &["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"],
            (Self::Aarch64, Accel::Kvm) => &["-M", "virt", "-accel", "kvm", "-cpu", "host"],
            (Self::Aarch64, Accel::Tcg) => {
                // `max` has a form of pointer authentication that takes most of the time in emulation.
                &["-M", "virt", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "cortex-a72"]
            }
        }
    }

    /// The guest's name of the serial port.
    pub(crate) fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Aarch64 => "ttyAMA0",
        }
    }

    /// How guests run: by the processor if it has this architecture and KVM, otherwise in emulation.
    pub(crate) fn accel(self) -> Accel {
        let open = || std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let module = |name: &str| Path::new("/sys/module").join(name).exists();
        let real = match self {
            // Other modules that make `/dev/kvm` (paravirtual ones of clouds) cannot run an ordinary kernel.
            Self::X86_64 => module("kvm_intel") || module("kvm_amd"),
            Self::Aarch64 => module("kvm"),
        };
        if self.is_own() && real && open() { Accel::Kvm } else { Accel::Tcg }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The executor of a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// This machine's processor.
    Kvm,
    /// QEMU, in software.
    Tcg,
}
