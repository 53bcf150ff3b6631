//! A bar chart of ratios on a logarithmic axis, as SVG.

use crate::row::{Row, median};

const BAR: f64 = 18.0;
const LEFT: f64 = 380.0;
const WIDE: f64 = 520.0;
const TOP: f64 = 46.0;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// How many times better each row is; the line at 1 is the other side.
pub(crate) fn svg(part: &str, rows: &[Row]) -> String {
    let bars: Vec<_> = rows.iter().filter(|row| !row.theirs.is_empty()).collect();
    let most = bars.iter().map(|row| median(&row.ratios())).fold(10.0, f64::max);
    let least = bars.iter().map(|row| median(&row.ratios())).fold(0.5, f64::min).max(0.001);
    let (low, high) = (least.log10(), most.log10());
    let x = |ratio: f64| LEFT + (ratio.max(least).log10() - low) / (high - low) * WIDE;
    let height = TOP + BAR * f64::from(u32::try_from(bars.len()).unwrap_or(0)) + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"15\">ucache, times better than the other ({}; logarithmic)</text>\n",
        escaped(part)
    );
    for power in -3..=5 {
        let ratio = 10_f64.powi(power);
        if (least..=most).contains(&ratio) {
            out += &format!(
                "<line x1=\"{0:.1}\" y1=\"{TOP}\" x2=\"{0:.1}\" y2=\"{height}\" stroke=\"{1}\"/>\n\
                 <text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\" fill=\"#555\">{ratio}x</text>\n",
                x(ratio),
                if power == 0 { "#333" } else { "#ccc" },
                TOP - 6.0
            );
        }
    }
    let mut y = TOP + 3.0;
    for row in bars {
        let ratios = row.ratios();
        let (middle, first, last) = (median(&ratios), ratios[0], ratios[ratios.len() - 1]);
        let (from, to) = (x(1.0).min(x(middle)), x(1.0).max(x(middle)));
        let label = escaped(&format!("{} / {}", row.name, row.peer));
        let fill = if middle >= 1.0 { "#2a7f9e" } else { "#c0504d" };
        let (label_end, text_y, line_y) = (LEFT - 8.0, y + 11.0, y + 7.0);
        let (wide, thick, low_x, high_x) = (to - from, BAR - 5.0, x(first), x(last));
        let text_x = high_x.max(to) + 5.0;
        out += &format!(
            "<text x=\"{label_end:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{label}</text>\n\
             <rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{thick}\" fill=\"{fill}\"/>\n\
             <line x1=\"{low_x:.1}\" y1=\"{line_y:.1}\" x2=\"{high_x:.1}\" y2=\"{line_y:.1}\" stroke=\"#222\"/>\n\
             <text x=\"{text_x:.1}\" y=\"{text_y:.1}\">{middle:.1}x</text>\n"
        );
        y += BAR;
    }
    out + "</svg>\n"
}
