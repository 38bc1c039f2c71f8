//! The node's interfaces, routes and neighbours, as far as they concern pods.

mod addresses;
mod filter;
mod known;
mod limit;
mod message;
mod netlink;
mod news;
mod select;

pub use filter::{BadPattern, LinkFilter, Pattern};
pub use netlink::watch_links;
