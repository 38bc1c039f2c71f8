//! The demo: lbr's main job in a minute, in numbered steps, for readers who see lbr for the first time.

mod control;
mod load;
mod outside;
mod picture;
mod policy;
mod story;
mod yaml;

pub use control::Source;
pub use story::{Story, play};
