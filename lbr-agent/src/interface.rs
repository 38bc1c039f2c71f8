//! Names of interfaces.

/// Name of an interface of this thread's network namespace; `None` if it is gone. nix takes the null pointer that the
/// C library returns then for a success, and gives an empty name.
pub(crate) fn name(ifindex: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?;
    Some(name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

/// The same for people: in place of a name that is gone, the number.
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
