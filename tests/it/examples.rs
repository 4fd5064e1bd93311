//! Examples that no program of theirs checks: JSON is read strictly. `tests/run examples` checks the rest.

use std::path::Path;

fn json_files(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            json_files(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "json") {
            into.push(path);
        }
    }
}

#[test]
fn json_is_sound() {
    let mut files = Vec::new();
    json_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), &mut files);
    assert!(!files.is_empty(), "no JSON among the examples");
    for file in files {
        let text = std::fs::read(&file).expect("readable");
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&text);
        assert!(json.is_ok(), "{}: {json:?}", file.display());
    }
}
