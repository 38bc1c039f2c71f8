//! The Debian kernel for a version, and the packages that hold it.

use std::collections::BTreeSet;

/// The release (`uname -r`) for a word on the command line: the newest of that version in Debian's `cloud` flavour,
/// or the one release that it names in full. `names`: packages that apt knows.
pub(super) fn release(wanted: &str, architecture: &str, names: &[&str]) -> Option<String> {
    let all = names.iter().filter_map(|name| release_of(name));
    let all = all.filter(|release| packages(release, names).is_some());
    if let Some(exact) = all.clone().find(|release| *release == wanted) {
        return Some(exact.to_owned());
    }
    let flavour = format!("-cloud-{architecture}");
    let fitting = all.filter(|release| release.ends_with(&flavour) && is_of_version(release, wanted));
    fitting.max_by(|a, b| numbers(a).cmp(&numbers(b))).map(str::to_owned)
}

/// The versions with complete kernels, in the `cloud` flavour, oldest first.
pub(super) fn versions(architecture: &str, names: &[&str]) -> Vec<String> {
    let flavour = format!("-cloud-{architecture}");
    let all = names.iter().filter_map(|name| release_of(name));
    let fitting = all.filter(|release| release.ends_with(&flavour) && packages(release, names).is_some());
    let two: BTreeSet<(u32, u32)> = fitting.filter_map(version).collect();
    two.into_iter().map(|(major, minor)| format!("{major}.{minor}")).collect()
}

/// Major and minor number of a release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    match numbers(release).as_slice() {
        [major, minor, ..] => Some((*major, *minor)),
        _ => None,
    }
}

/// The packages of a release: one image with everything or, in newer ones, the image and the modules. None if apt
/// lacks one of them.
pub(super) fn packages(release: &str, names: &[&str]) -> Option<Vec<String>> {
    let known = |kind: &str| {
        let name = format!("linux-{kind}-{release}");
        names.contains(&name.as_str()).then_some(name)
    };
    match known("binary").or_else(|| known("binary-unsigned")) {
        Some(binary) => Some(vec![binary, known("modules")?]),
        None => Some(vec![known("image")?]),
    }
}

/// The newest downloaded release for a word on the command line.
pub(super) fn newest_of<'a>(
    wanted: &str,
    architecture: &str,
    releases: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let flavour = format!("-cloud-{architecture}");
    let fitting = releases.filter(|release| {
        *release == wanted || (release.ends_with(&flavour) && is_of_version(release, wanted))
    });
    fitting.max_by(|a, b| numbers(a).cmp(&numbers(b)))
}

/// The release in the name of a kernel's package. Packages that only depend on the newest kernel have none.
fn release_of(package: &str) -> Option<&str> {
    let rest = package.strip_prefix("linux-")?;
    let release = rest.strip_prefix("image-").or_else(|| rest.strip_prefix("binary-"))?;
    let version = release.split(['-', '+']).next().unwrap_or_default();
    let full = version.split('.').count() >= 3 && version.split('.').all(|part| part.parse::<u32>().is_ok());
    full.then_some(release)
}

/// Whether a release belongs to a version, which may be abbreviated: `6.1` is the version of `6.1.0-56-cloud-amd64`.
fn is_of_version(release: &str, version: &str) -> bool {
    release.strip_prefix(version).is_some_and(|rest| rest.starts_with(['.', '-', '+']))
}

/// The numbers in a release, which sort it among others.
fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 14] = [
        "linux-image-6.1-cloud-amd64",
        "linux-image-cloud-amd64",
        "linux-image-6.1.0-0.deb11.52-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-amd64",
        "linux-headers-6.1.0-99-cloud-amd64",
        "linux-image-6.12.117+deb13-cloud-amd64",
        "linux-image-6.12.90+deb13.1-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.3.4+deb13-cloud-amd64",
        "linux-modules-7.3.4+deb13-cloud-amd64",
        "linux-image-7.3.9+deb13-cloud-amd64",
        "linux-binary-7.3.9+deb13-cloud-amd64",
    ];

    fn found(wanted: &str) -> Option<String> {
        release(wanted, "amd64", &NAMES)
    }

    #[test]
    fn a_version_means_its_newest_release() {
        assert_eq!(found("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(found("6.12").as_deref(), Some("6.12.117+deb13-cloud-amd64"));
        assert_eq!(found("6.12.90").as_deref(), Some("6.12.90+deb13.1-cloud-amd64"));
        assert_eq!(found("6.2"), None);
        assert_eq!(versions("amd64", &NAMES), ["6.1", "6.12", "7.3"]);
        assert_eq!(release("6.1", "arm64", &NAMES), None);
    }

    #[test]
    fn a_release_means_itself() {
        assert_eq!(found("6.1.0-9-cloud-amd64").as_deref(), Some("6.1.0-9-cloud-amd64"));
        assert_eq!(found("6.1.0-56-amd64").as_deref(), Some("6.1.0-56-amd64"));
        assert_eq!(found("6.1-cloud-amd64"), None);
    }

    #[test]
    fn newer_kernels_come_in_two_packages() {
        let of = |wanted| packages(&found(wanted).unwrap(), &NAMES).unwrap();
        assert_eq!(of("6.1"), ["linux-image-6.1.0-56-cloud-amd64"]);
        // The modules of the newest one are missing.
        let two = ["linux-binary-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"];
        assert_eq!(of("7.3"), two);
    }

    #[test]
    fn downloaded_kernel_is_used() {
        let releases =
            ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.1.0-57-cloud-arm64", "6.1.0-58-amd64"];
        assert_eq!(newest_of("6.1", "amd64", releases.into_iter()), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest_of("6.1.0-9-cloud-amd64", "amd64", releases.into_iter()), Some(releases[0]));
        assert_eq!(newest_of("5.10", "amd64", releases.into_iter()), None);
    }
}
