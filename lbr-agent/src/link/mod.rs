//! Pods' interfaces and uplinks: the entries of `links` and `uplinks`, and with them the programs.

mod apply;
mod compile;

pub(crate) use self::apply::Links;
pub(crate) use self::compile::links;
pub(crate) use self::compile::unfit_device;
