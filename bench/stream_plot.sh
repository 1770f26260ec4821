#!/bin/sh
# SPDX-License-Identifier: MIT
# The curve of bench/stream as SVG: stream_plot.sh FILE.csv >docs/stream.svg. Tokens a second over the limit in GiB, a line for each
# number of tokens in a micro-batch; rows of other numbers of layers than the first are left out. Lines that begin with # are remarks.
grep -v '^#' "$1" | awk -F, '
NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
$1 == "layers" { next }
{
    if (!layers) layers = $column["layers"]
    if ($column["layers"] != layers || $column["ram_mib"] == 0) next
    n++; ram[n] = $column["ram_mib"] / 1024; speed[n] = $column["tokens_s"]; batch[n] = $column["tokens"]
    if (ram[n] > x) x = ram[n]
    if (speed[n] > y) y = speed[n]
    if (!(batch[n] in seen)) { seen[batch[n]] = ++lines; name[lines] = batch[n] }
}
function at_x(v) { return 60 + v / x * 500 }
function at_y(v) { return 300 - v / (1.1 * y) * 260 }
END {
    if (!n) exit 1
    split("#1f77b4 #d62728 #2ca02c #9467bd", color, " ")
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"360\" font-family=\"sans-serif\" font-size=\"12\">"
    print "<rect width=\"680\" height=\"360\" fill=\"white\"/>"
    printf "<path d=\"M60 40V300H560\" fill=\"none\" stroke=\"black\"/>\n<text x=\"310\" y=\"345\" text-anchor=\"middle\">ram, GiB (%d layers)</text>\n", layers
    print "<text x=\"20\" y=\"30\">tokens/s</text>"
    for (i = 0; i <= 4; i++)
        printf "<text x=\"54\" y=\"%.1f\" text-anchor=\"end\">%.1f</text>\n<path d=\"M60 %.1fH560\" stroke=\"#ddd\"/>\n", at_y(1.1 * y * i / 4) + 4, 1.1 * y * i / 4, at_y(1.1 * y * i / 4)
    for (line = 1; line <= lines; line++) {
        path = ""
        for (i = 1; i <= n; i++) {
            if (batch[i] != name[line]) continue
            path = path (path ? "L" : "M") sprintf("%.1f %.1f", at_x(ram[i]), at_y(speed[i]))
            printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at_x(ram[i]), at_y(speed[i]), color[line]
            if (!labelled[ram[i]]++)
                printf "<text x=\"%.1f\" y=\"318\" text-anchor=\"middle\">%g</text>\n", at_x(ram[i]), ram[i]
        }
        printf "<path d=\"%s\" fill=\"none\" stroke=\"%s\"/>\n<text x=\"570\" y=\"%d\" fill=\"%s\">%d tokens</text>\n", path, color[line], 40 + 18 * line, color[line], name[line]
    }
    print "</svg>"
}'
