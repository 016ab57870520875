//! The hardware side of the model. Each file has one subject:
//!
//! | | |
//! |---|---|
//! | `boot.s`, `pvh`, `image`, `runtime`, `trap`, `cpu`, `cpus`, `lock`, `serial`, `stop` | the program itself |
//! | `memory`, `npt`, `walk` | memory: the host's, the nested tables, the guest's tables |
//! | `vmcb`, `vcpu`, `vcpus`, `exits`, `vc` | the processors: state, life, exits, `#VC` |
//! | `msr`, `pages` | instructions that SEV-SNP adds |
//! | `ghcb_msr`, `ghcb_page`, `devices`, `interrupts`, `machine`, `strict` | the hypervisor that the guest talks to |
//! | `hostile` | the same hypervisor, when it lies |
//! | `start` | launch |

mod cpu;
mod cpus;
mod devices;
mod exits;
mod ghcb_msr;
mod ghcb_page;
mod hostile;
mod image;
mod interrupts;
mod lock;
#[allow(clippy::module_inception, reason = "the machine that the guest sees")]
mod machine;
mod memory;
mod msr;
mod npt;
mod pages;
mod pvh;
mod runtime;
mod serial;
mod start;
mod stop;
mod strict;
mod trap;
mod vc;
mod vcpu;
mod vcpus;
mod vmcb;
mod walk;

core::arch::global_asm!(include_str!("boot.s"));
