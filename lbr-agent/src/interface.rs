//! Names of interfaces.

/// Name of an interface of this thread's network namespace; `None` if it is gone. The C library then returns a null
/// pointer, which nix takes for a success with an empty name.
pub(crate) fn name(ifindex: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?;
    Some(name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

/// The same for people: a gone interface has its number as its name.
pub(crate) fn name_or_number(ifindex: u32) -> String {
    name(ifindex).unwrap_or_else(|| format!("interface {ifindex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_gone_has_no_name() {
        assert_eq!(name(i32::MAX.cast_unsigned()), None);
        assert_eq!(name_or_number(i32::MAX.cast_unsigned()), "interface 2147483647");
        assert_eq!(name(1).as_deref(), Some("lo"));
    }
}
