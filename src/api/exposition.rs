//! The two text formats of `/metrics`, and which of them a request asks for.
//!
//! prometheus-client writes OpenMetrics. Other scrapers, `curl` and `promtool check metrics` read the
//! classic text format: there a counter's `# HELP` and `# TYPE` carry the name its samples have, and
//! there is neither `# UNIT` nor `# EOF`.
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>)

/// The content type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the classic text format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` header prefers OpenMetrics: it names it, and weighs it no less than plain text.
pub fn wants_openmetrics(accept: &str) -> bool {
    let (mut open, mut plain, mut any) = (0.0f64, None::<f64>, 0.0f64);
    for (range, weight) in accept.split(',').filter_map(media_range) {
        match range.as_str() {
            "application/openmetrics-text" => open = open.max(weight),
            "text/plain" => plain = Some(plain.unwrap_or(0.0).max(weight)),
            "text/*" | "*/*" => any = any.max(weight),
            _ => {}
        }
    }
    open > 0.0 && open >= plain.unwrap_or(any)
}

/// A media range in lower case and its weight; `None` where the weight is none.
fn media_range(text: &str) -> Option<(String, f64)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next()?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |weight| weight.trim().parse().ok())?;
    (0.0..=1.0).contains(&weight).then_some((range, weight))
}

/// OpenMetrics as prometheus-client writes it (no timestamps, no exemplars) in the classic format.
pub fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    // The help comes before the type, and only the type tells its name.
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "histogram" | "summary" | "gauge" => ("", kind),
                _ => ("", "untyped"),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                push(&mut text, &["# HELP ", name, suffix, " ", words]);
            }
            push(&mut text, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push(&mut text, &[line]);
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
    text.push('\n');
}

#[cfg(test)]
pub(crate) mod lint;

#[cfg(test)]
mod tests {
    use super::lint::complaints;
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,\
                            */*;q=0.2";
        for (accept, wanted) in [
            (prometheus_3, true),
            ("application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; q=1, */*", true),
            ("", false),
            ("*/*", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("text/plain;version=0.0.4", false),
            ("application/openmetrics-text;q=0.1,text/plain;q=0.9", false),
            ("application/openmetrics-text;q=0.1,*/*", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=high", false),
        ] {
            assert_eq!(wants_openmetrics(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn counters_get_the_names_of_their_samples() {
        let open = "# HELP a_b Things, so far.\n# TYPE a_b counter\na_b_total{x=\"# TYPE\"} 1\na_b_total 2.5\n\
                    # HELP g_bytes Size.\n# TYPE g_bytes gauge\n# UNIT g_bytes bytes\ng_bytes -1.0\n\
                    # HELP h_seconds Time.\n# TYPE h_seconds histogram\nh_seconds_sum 1.0\nh_seconds_count 1\n\
                    h_seconds_bucket{le=\"0.1\"} 0\nh_seconds_bucket{le=\"+Inf\"} 1\n\
                    # HELP build About it.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
                    # HELP odd Whatever.\n# TYPE odd unknown\nodd 1\n# EOF\n";
        let text = classic(open);
        assert_eq!(
            text,
            "# HELP a_b_total Things, so far.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE\"} 1\na_b_total 2.5\n\
             # HELP g_bytes Size.\n# TYPE g_bytes gauge\ng_bytes -1.0\n\
             # HELP h_seconds Time.\n# TYPE h_seconds histogram\nh_seconds_sum 1.0\nh_seconds_count 1\n\
             h_seconds_bucket{le=\"0.1\"} 0\nh_seconds_bucket{le=\"+Inf\"} 1\n\
             # HELP build_info About it.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
             # HELP odd Whatever.\n# TYPE odd untyped\nodd 1\n"
        );
        let text = text.replace("# HELP odd Whatever.\n# TYPE odd untyped\nodd 1\n", "");
        assert_eq!(complaints(&text), [""; 0]);
    }

    #[test]
    fn what_is_not_classic_is_complained_of() {
        for (text, words) in [
            ("# HELP a A.\n# TYPE a counter\na_total 1\n", "without # TYPE"),
            ("# HELP a A.\n# TYPE a counter\na 1\n", "_total"),
            ("# TYPE a gauge\na 1\n", "no help"),
            ("# HELP a A.\n# TYPE a gauge\na 1\n# EOF\n", "neither"),
            ("# HELP a A.\n# TYPE a gauge\na 1\na 2\n", "twice"),
            ("# HELP a A.\n# TYPE a gauge\na{x=1} 1\n", "sample"),
            ("# HELP a A.\n# TYPE a gauge\na one\n", "sample"),
            ("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n", "_total"),
            ("# HELP a A.\n# TYPE a gauge\na 1", "newline"),
            ("# HELP a A.\n# TYPE a gauge\n# HELP b B.\n# TYPE b gauge\nb 1\na 1\n", "family"),
            ("# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n", "+Inf"),
        ] {
            let found = complaints(text);
            assert!(found.iter().any(|complaint| complaint.contains(words)), "{text}: {found:?}");
        }
    }
}
