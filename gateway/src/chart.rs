//! Small charts of the last minutes, as SVG within a page.

use std::fmt::Write;

use crate::metrics::STEP;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 96.0;
/// Steps of the whole width: ten minutes.
const STEPS: usize = 120;

/// A name, and a value for each step that has one, the newest last.
pub type Series = (&'static str, Vec<Option<f64>>);

/// `label` writes a value with its unit.
pub fn lines(title: &str, series: &[Series], label: impl Fn(f64) -> String) -> String {
    let values = series.iter().flat_map(|(_, values)| values.iter().flatten().copied());
    let max = values.fold(0.0, f64::max);
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <line class=\"axis\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>\
         <line class=\"grid\" x1=\"0\" y1=\"1\" x2=\"{WIDTH}\" y2=\"1\"/>"
    );
    for (number, (_, values)) in series.iter().enumerate() {
        for line in points(values, max) {
            let _ = write!(svg, "<polyline class=\"s{number}\" points=\"{line}\"/>");
        }
    }
    let minutes = STEP.as_secs() as usize * STEPS / 60;
    let _ = write!(svg, "</svg><p class=\"scale\"><span>{minutes} min ago</span>");
    for (number, (name, values)) in series.iter().enumerate() {
        let newest = values.last().copied().flatten().map_or("-".to_owned(), &label);
        let _ = write!(svg, "<span class=\"key s{number}\">{name} {newest}</span>");
    }
    let _ = write!(svg, "<span>most {}</span></p></figure>", label(max));
    svg
}

/// A line for each run of values. The newest is at the right edge.
fn points(values: &[Option<f64>], max: f64) -> Vec<String> {
    let step = WIDTH / STEPS as f64;
    let begin = WIDTH - step * values.len().saturating_sub(1) as f64;
    let point = |(number, value): &(usize, Option<f64>)| {
        let share = value.filter(|_| max > 0.0).map_or(0.0, |value| value / max);
        let (x, y) = (begin + step * *number as f64, HEIGHT - 1.0 - share * (HEIGHT - 2.0));
        format!("{x:.1},{y:.1}")
    };
    let values: Vec<(usize, Option<f64>)> = values.iter().copied().enumerate().collect();
    values
        .split(|(_, value)| value.is_none())
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().map(point).collect::<Vec<_>>().join(" "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_at_the_right_and_the_largest_at_the_top() {
        let lines = points(&[Some(0.0), Some(4.0), None, Some(2.0)], 4.0);
        assert_eq!(lines, ["468.0,95.0 472.0,1.0", "480.0,48.0"]);
        assert_eq!(points(&[Some(0.0)], 0.0), ["480.0,95.0"]);
        assert!(points(&[None], 0.0).is_empty());
    }
}
