//! Files of a workspace, through commands in its jail: nothing of it is touched from outside.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::wire::{ListFiles, ReadFile, WriteFile};
use crate::client::connection::{Connection, part};

/// What a result carries of a file, at most: in base64 it must fit into a command's output.
const LONGEST_READ: u64 = 512 << 10;

/// The file beside goes if anything goes wrong.
const WRITE: &str = r#"set -eu
directory="$(dirname -- "$1")"
mkdir -p -- "$directory"
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
fresh="$(mktemp -- "$directory/.write-XXXXXX")"
trap 'rm -f -- "$fresh"' EXIT
cat > "$fresh"
if [ -e "$1" ]; then chmod --reference="$1" -- "$fresh"; else chmod 644 -- "$fresh"; fi
mv -T -- "$fresh" "$1""#;

const READ: &str = r#"set -eu
[ ! -d "$1" ] || { echo "$1 is a directory" >&2; exit 1; }
stat -L -c %s -- "$1"
tail -c "+$2" -- "$1" | head -c "$3" | base64 -w 0"#;

const LIST: &str = r#"set -eu
cd -- "$1"
find . -mindepth 1 -maxdepth 1 -printf '%y\t%s\t%TY-%Tm-%TdT%TH:%TM:%.2TSZ\t%f\0' | head -c 900000"#;

/// So long, a list is cut off.
const LONGEST_LIST: usize = 900_000;

pub(super) async fn read(connection: &Connection, asked: &ReadFile) -> anyhow::Result<Value> {
    let (offset, length) = (asked.offset.unwrap_or(0), asked.length.unwrap_or(LONGEST_READ));
    let length = length.clamp(1, LONGEST_READ);
    let first = offset.saturating_add(1).to_string();
    let arguments = [&asked.path, &first, &length.to_string()];
    let said = script(connection, &asked.workspace_id, READ, &arguments, None).await?;
    let (size, content) = said.split_once('\n').context("the file was not read")?;
    let size: u64 = size.parse().context("the file was not read")?;
    let bytes = STANDARD.decode(content.trim()).context("the file was not read")?;
    let end = offset + bytes.len() as u64;
    let mut result = json!({ "path": asked.path, "size": size, "offset": offset });
    match String::from_utf8(bytes) {
        Ok(text) => result["text"] = json!(text),
        Err(error) => result["base64"] = json!(STANDARD.encode(error.into_bytes())),
    }
    if end < size {
        result["next_offset"] = json!(end);
    }
    Ok(result)
}

pub(super) async fn write(connection: &Connection, asked: &WriteFile) -> anyhow::Result<Value> {
    let kept = ["/workspace/", "/output/", "/home/agent/"];
    if asked.path.starts_with('/') && !kept.iter().any(|below| asked.path.starts_with(below)) {
        bail!(
            "path: only files below /workspace and /output are kept; a relative path is below /workspace"
        );
    }
    let content = Some(asked.content.as_str());
    script(connection, &asked.workspace_id, WRITE, &[&asked.path], content).await?;
    Ok(json!({ "path": asked.path, "bytes": asked.content.len() }))
}

pub(super) async fn list(connection: &Connection, asked: &ListFiles) -> anyhow::Result<Value> {
    let path = asked.path.clone().unwrap_or_else(|| "/workspace".to_owned());
    let said = script(connection, &asked.workspace_id, LIST, &[&path], None).await?;
    let truncated = said.len() >= LONGEST_LIST;
    // The last one may be half of one.
    let whole =
        if truncated { said.rsplit_once('\0').map_or("", |(whole, _)| whole) } else { &said };
    let mut entries: Vec<Value> = whole
        .split_terminator('\0')
        .filter_map(|entry| {
            let mut fields = entry.splitn(4, '\t');
            let (kind, size) = (fields.next()?, fields.next()?.parse::<u64>().ok()?);
            let (modified, name) = (fields.next()?, fields.next()?);
            let kind = match kind {
                "d" => "directory",
                "f" => "file",
                "l" => "link",
                _ => "other",
            };
            Some(json!({ "name": name, "type": kind, "size": size, "modified": modified }))
        })
        .collect();
    entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let mut result = json!({ "path": path, "entries": entries });
    if truncated {
        result["truncated"] = json!(true);
    }
    Ok(result)
}

/// Runs a script of ours with arguments; what it complains of is the error.
async fn script(
    connection: &Connection,
    workspace: &str,
    script: &str,
    arguments: &[&String],
    stdin: Option<&str>,
) -> anyhow::Result<String> {
    if arguments[0].is_empty() || arguments[0].contains('\0') {
        bail!("path: a file's name is expected");
    }
    // `-` alone would be a stream, or the directory before.
    let relative = !arguments[0].starts_with('/');
    let path = if relative { format!("./{}", arguments[0]) } else { arguments[0].clone() };
    let mut words = vec!["-c", script, "sh", &path];
    words.extend(arguments[1..].iter().map(|word| word.as_str()));
    let mut body = json!({ "cmd": "sh", "args": words });
    if let Some(stdin) = stdin {
        body["stdin"] = json!(stdin);
    }
    let path = format!("/v1/workspaces/{}/exec", part(workspace)?);
    let result = connection.post_in_turn(&path, &body).await?;
    if result["exit_code"] != 0 {
        let said = result["stderr"].as_str().unwrap_or_default().trim();
        bail!("{}", if said.is_empty() { "the command did not end well" } else { said });
    }
    Ok(result["stdout"].as_str().unwrap_or_default().to_owned())
}
