#!/bin/sh
# SPDX-License-Identifier: MIT
# Rows of bench/vocab_scale as SVG: scale_plot.sh FILE.csv >docs/vocab_scale.svg. Peak of resident memory (left) and minutes (right) over
# gigabytes of text, a line for each memory limit. Lines that begin with # are remarks.
grep -v '^#' "$1" | awk -F, '
NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
{
    n++; size[n] = $column["size_mb"] / 1000; limit[n] = $column["limit_gib"]
    value[1, n] = $column["peak_rss_gib"]; value[2, n] = $column["total_s"] / 60
    if (size[n] > x) x = size[n]
    for (p = 1; p <= 2; p++) if (value[p, n] > y[p]) y[p] = value[p, n]
    if (!(limit[n] in seen)) { seen[limit[n]] = ++lines; name[lines] = limit[n] }
}
function at_x(p, v) { return 60 + (p - 1) * 380 + v / x * 300 }
function at_y(p, v) { return 300 - v / (1.1 * y[p]) * 260 }
END {
    if (!n) exit 1
    split("#1f77b4 #d62728 #2ca02c #9467bd", color, " ")
    title[1] = "peak memory, GiB"; title[2] = "minutes"
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"880\" height=\"360\" font-family=\"sans-serif\" font-size=\"12\">"
    print "<rect width=\"880\" height=\"360\" fill=\"white\"/>"
    for (p = 1; p <= 2; p++) {
        left = at_x(p, 0)
        printf "<path d=\"M%d 40V300H%d\" fill=\"none\" stroke=\"black\"/>\n<text x=\"%d\" y=\"345\" text-anchor=\"middle\">text, GB</text>\n<text x=\"%d\" y=\"30\">%s</text>\n", left, left + 300, left + 150, left - 40, title[p]
        for (i = 0; i <= 4; i++)
            printf "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.1f</text>\n<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", left - 6, at_y(p, 1.1 * y[p] * i / 4) + 4, 1.1 * y[p] * i / 4, left, at_y(p, 1.1 * y[p] * i / 4), left + 300
        for (line = 1; line <= lines; line++) {
            path = ""
            for (i = 1; i <= n; i++) {
                if (limit[i] != name[line]) continue
                path = path (path ? "L" : "M") sprintf("%.1f %.1f", at_x(p, size[i]), at_y(p, value[p, i]))
                printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at_x(p, size[i]), at_y(p, value[p, i]), color[line]
                if (!labelled[p, size[i]]++)
                    printf "<text x=\"%.1f\" y=\"318\" text-anchor=\"middle\">%g</text>\n", at_x(p, size[i]), size[i]
            }
            printf "<path d=\"%s\" fill=\"none\" stroke=\"%s\"/>\n", path, color[line]
            if (p == 2) printf "<text x=\"760\" y=\"%d\" fill=\"%s\">%s</text>\n", 40 + 18 * line, color[line], (name[line] > 0 ? "within " name[line] " GiB" : "no limit")
        }
    }
    print "</svg>"
}'
