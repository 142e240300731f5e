//! `--mount type=bind,src=/data,dst=/data,ro`.

use cofferdam_proto::compute::v1::{Mount, TmpfsMount, mount::Source};

use crate::units::parse_size;

/// Reads one specification; the words are those of `docker run --mount`.
pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut kind = None;
    let mut source = None;
    let mut target = None;
    let mut size_bytes = None;
    let mut read_only = false;
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .map_or((part, None), |(key, value)| (key, Some(value)));
        let given = || {
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("{key} needs a value"))
        };
        match key {
            "type" => kind = Some(given()?),
            "src" | "source" => source = Some(given()?),
            "dst" | "target" | "destination" => target = Some(given()?),
            "size" => size_bytes = Some(parse_size(&given()?)?),
            "ro" | "readonly" => {
                read_only = match value {
                    None | Some("true") => true,
                    Some("false") => false,
                    Some(other) => return Err(format!("{key}={other}: write true or false")),
                }
            }
            other => return Err(format!("{other:?} is none of type, src, dst, ro, size")),
        }
    }
    let target = target.ok_or("dst=PATH is missing")?;
    if !target.starts_with('/') {
        return Err(format!("dst={target} is not an absolute path"));
    }
    let kind = kind.unwrap_or_else(|| "bind".to_owned());
    if size_bytes.is_some() && kind != "tmpfs" {
        return Err(format!("size goes with type=tmpfs, not type={kind}"));
    }
    let needed = || source.clone().ok_or(format!("type={kind} needs src="));
    let source = match kind.as_str() {
        "bind" => Source::HostPath(absolute(&needed()?)?),
        "volume" => Source::Volume(needed()?),
        "tmpfs" if source.is_some() => return Err("type=tmpfs has no src".to_owned()),
        "tmpfs" => Source::Tmpfs(TmpfsMount {
            size_bytes: size_bytes.unwrap_or_default(),
        }),
        other => return Err(format!("type={other} is none of bind, volume, tmpfs")),
    };
    Ok(Mount {
        target,
        read_only,
        source: Some(source),
    })
}

/// The gateway does not know where we are: relative paths are resolved here.
fn absolute(path: &str) -> Result<String, String> {
    let path = std::path::absolute(path).map_err(|error| format!("src={path}: {error}"))?;
    path.into_os_string()
        .into_string()
        .map_err(|path| format!("src={} is not UTF-8", path.to_string_lossy()))
}

/// The other way, for people.
pub(crate) fn show_mount(mount: &Mount) -> String {
    let source = match &mount.source {
        Some(Source::HostPath(path)) => format!("bind {path}"),
        Some(Source::Volume(name)) => format!("volume {name}"),
        Some(Source::Tmpfs(_)) => "tmpfs".to_owned(),
        None => "?".to_owned(),
    };
    let mode = if mount.read_only { " (read-only)" } else { "" };
    format!("{} ← {source}{mode}", mount.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_read() {
        let bind = parse_mount("src=/a,dst=/b,ro").unwrap();
        assert_eq!(bind.source, Some(Source::HostPath("/a".into())));
        assert!(bind.read_only);
        let volume = parse_mount("type=volume,source=v,target=/b,readonly=false").unwrap();
        assert_eq!(volume.source, Some(Source::Volume("v".into())));
        let tmpfs = parse_mount("type=tmpfs,dst=/t,size=64M").unwrap();
        assert_eq!(
            tmpfs.source,
            Some(Source::Tmpfs(TmpfsMount {
                size_bytes: 64 << 20
            }))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("src=/a", "dst=PATH is missing"),
            ("dst=/b", "type=bind needs src="),
            ("dst=b,src=/a", "dst=b is not an absolute path"),
            ("type=tmpfs,dst=/t,src=/a", "type=tmpfs has no src"),
            ("type=nfs,dst=/t", "type=nfs is none of bind, volume, tmpfs"),
            (
                "src=/a,dst=/b,size=1M",
                "size goes with type=tmpfs, not type=bind",
            ),
            (
                "src=/a,dst=/b,rw",
                "\"rw\" is none of type, src, dst, ro, size",
            ),
        ] {
            assert_eq!(parse_mount(text).unwrap_err(), problem);
        }
    }
}
