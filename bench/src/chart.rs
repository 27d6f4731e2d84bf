//! The ratios as a picture: a bar for each row, on a logarithmic scale around 1,
//! with a mark where its target lies.

use std::fmt::Write;

use crate::report::{Report, Row, Target, target};

const LABELS: f64 = 260.0;
const WIDTH: f64 = 480.0;
const LINE: f64 = 22.0;
const TOP: f64 = 50.0;
/// Ratios from 1/32 to 4.
const FROM: f64 = -5.0;
const TO: f64 = 2.0;

fn x(ratio: f64) -> f64 {
    LABELS + (ratio.log2().clamp(FROM, TO) - FROM) / (TO - FROM) * WIDTH
}

pub fn svg(report: &Report) -> String {
    let height = TOP + LINE * report.rows.len() as f64 + 20.0;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n\
         <text x='10' y='18' font-size='14'>sync_ext / other, Postgres {}</text>\n",
        LABELS + WIDTH + 80.0,
        report.postgres
    );
    for power in FROM as i32..=TO as i32 {
        let (at, ratio) = (x(2f64.powi(power)), 2f64.powi(power));
        let color = if power == 0 { "#444" } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1='{at}' y1='{TOP}' x2='{at}' y2='{}' stroke='{color}'/>\n\
             <text x='{at}' y='{}' text-anchor='middle' fill='#666'>{ratio:.2}</text>",
            height - 16.0,
            TOP - 8.0
        );
    }
    for (place, row) in report.rows.iter().enumerate() {
        bar(&mut out, row, TOP + LINE * place as f64);
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, row: &Row, y: f64) {
    let target = target(&row.name);
    let color = match target {
        None => "#9ab",
        Some(target) if target.is_met(row.ratio) => "#4a8",
        Some(_) => "#d64",
    };
    let (one, end) = (x(1.0), x(row.ratio));
    let middle = y + LINE / 2.0;
    let _ = writeln!(
        out,
        "<text x='{}' y='{}' text-anchor='end'>{}</text>\n\
         <rect x='{}' y='{}' width='{}' height='{}' fill='{color}'/>\n\
         <text x='{}' y='{}' fill='#333'>{:.2}</text>",
        LABELS - 8.0,
        middle + 4.0,
        row.name,
        one.min(end),
        y + 4.0,
        (end - one).abs().max(1.0),
        LINE - 8.0,
        one.max(end) + 6.0,
        middle + 4.0,
        row.ratio
    );
    if let Some(Target::AtMost(limit) | Target::AtLeast(limit)) = target {
        let at = x(limit);
        let _ = writeln!(
            out,
            "<line x1='{at}' y1='{}' x2='{at}' y2='{}' stroke='black' stroke-width='2'/>",
            y + 2.0,
            y + LINE - 2.0
        );
    }
}
