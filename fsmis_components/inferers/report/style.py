"""How every report looks: plain CSS for screen, telephone and paper.

Colours are variables, light ones here; a report whose pictures stand on a dark ground as well lays
`DARK` over them.
"""

STYLE = """
:root { color-scheme: light; --ground: #fff; --ink: #22303c; --soft: #5c6872; --line: #dfe4e8;
  --rule: #c3cad0; --shade: #f5f7f8; --warn: #fdf1df; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 22px; line-height: 1.25; margin: 52px 0 4px; padding-top: 18px;
  border-top: 1px solid var(--line); }
h3 { font-size: 17px; margin: 26px 0 6px; }
h4 { font-size: 15px; margin: 20px 0 4px; }
p { margin: 6px 0 12px; max-width: 76ch; }
p.lead { font-size: 18px; }
p.soft, figcaption, small { color: var(--soft); }
.warning { background: var(--warn); border-left: 4px solid #e69f00; padding: 8px 12px;
  overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: 4px 18px; max-width: none; }
.chip { white-space: nowrap; }
.chip i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; }
.wide { overflow-x: auto; margin: 8px 0 18px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid var(--rule); }
th.right, td.right { text-align: right; }
td.right { white-space: nowrap; }
thead th { vertical-align: bottom; }
table.facts { table-layout: auto; width: 100%; }
table.facts th { font-weight: 600; white-space: nowrap; width: 1%; }
table.facts td, code, pre { overflow-wrap: anywhere; }
table.facts table { width: 100%; }
code, pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; background: var(--shade); padding: 10px 12px; border-radius: 4px; }
ul.plain { padding-left: 20px; }
footer { margin-top: 40px; color: var(--soft); font-size: 14px; }
@media (max-width: 640px) {
  main { padding: 18px 14px 36px; }
  h1 { font-size: 25px; } p.lead { font-size: 17px; }
  th, td { padding: 4px 8px; }
  table.facts > tbody > tr > th, table.facts > tbody > tr > td { display: block; width: auto;
    white-space: normal; border-bottom: 0; padding: 3px 0; }
}
@media print {
  body { font-size: 11pt; } main { max-width: none; padding: 0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: 9pt; }
}
"""

DARK = """
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ground: #14191e; --ink: #e3e8ec; --soft: #9ba7b1; --line: #2c353d;
    --rule: #4a5660; --shade: #1d242a; --warn: #3a2c12; }
  a { color: #8ab8f0; }
}
"""
