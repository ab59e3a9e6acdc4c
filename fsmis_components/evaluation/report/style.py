"""How the benchmark's own parts look, beside what all reports share: cards, bars, pictures."""

STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px;
  margin: 14px 0 26px; }
.card { border: 1px solid var(--line); border-top: 5px solid var(--rule); border-radius: 6px;
  padding: 10px 16px 14px; }
.card[style] { border-left-color: var(--line) !important; border-right-color: var(--line)
  !important; border-bottom-color: var(--line) !important; }
.card strong { display: block; font-size: 46px; line-height: 1.1; letter-spacing: -1px;
  font-variant-numeric: tabular-nums; }
.card span { display: block; font-weight: 600; }
.card span::first-letter { text-transform: uppercase; }
.card small { display: block; font-size: 14px; line-height: 1.35; }
.chip i.dot { border-radius: 50%; }
.chip i.dashed { width: 26px; height: 14px; background: #444; vertical-align: -2px;
  background-image: linear-gradient(90deg, #fff 60%, transparent 0); background-size: 8px 2px;
  background-repeat: repeat-x; background-position: 2px center; }
.standings { margin: 8px 0 20px; }
.standing { display: grid; grid-template-columns: minmax(150px, 30%) 1fr; gap: 2px 18px;
  align-items: center; min-height: 34px; padding: 3px 0; }
.standing > span { overflow-wrap: anywhere; line-height: 1.25; display: flex; gap: 10px;
  justify-content: space-between; align-items: baseline; }
.standing small { white-space: nowrap; font-size: 14px; }
.standing em { font-style: normal; font-weight: 700; margin-left: 8px; border-bottom: 3px solid;
  font-variant-numeric: tabular-nums; }
.standing.floor { color: var(--soft); }
.track, .scale { position: relative; height: 24px; margin: 0 10px; }
.track { background: linear-gradient(var(--line), var(--line)) center / 100% 1px no-repeat; }
.track b, .track u, .track i { position: absolute; top: 50%; transform: translateY(-50%); }
.track b { height: 4px; background: var(--rule); }
.track u { height: 12px; opacity: .22; border-radius: 2px; }
.track i { width: 15px; height: 15px; border-radius: 50%; border: 2px solid #fff;
  transform: translate(-50%, -50%); }
.scale span { position: absolute; transform: translateX(-50%); font-size: 13px;
  color: var(--soft); }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr));
  gap: 22px 24px; align-items: start; }
.panel { margin: 0; max-width: 460px; }
.panel img { display: block; width: 100%; height: auto; }
.case { margin-top: 26px; }
.case h3 { margin-bottom: 0; overflow-wrap: anywhere; }
.case .number { color: var(--soft); font-weight: 400; margin-left: 6px; }
.slices { display: grid; grid-template-columns: repeat(6, 1fr); gap: 10px; }
.slice { margin: 0; }
.slice svg { display: block; width: 100%; height: auto; background: #000; border-radius: 3px; }
.slice figcaption { font-size: 13px; margin-top: 2px; }
.slice path { vector-effect: non-scaling-stroke; stroke-width: 1.8; stroke-linejoin: round; }
.slice .prediction path { fill-opacity: .25; fill-rule: evenodd; }
.slice path.label { fill: none; stroke: #fff; stroke-width: 1.3; stroke-dasharray: 4 2.5; }
.slice:hover g { opacity: 0; }
.tables li { max-width: 100ch; }
th.centre, td.centre { text-align: center; }
@media (max-width: 1000px) { .slices { grid-template-columns: repeat(3, 1fr); } }
@media (max-width: 640px) {
  .cards { grid-template-columns: 1fr 1fr; gap: 10px; }
  .card { padding: 8px 12px 10px; } .card strong { font-size: 36px; }
  .standing { grid-template-columns: 1fr; margin-bottom: 6px; }
  .slices { grid-template-columns: 1fr 1fr; } .panels { grid-template-columns: 1fr; }
}
@media print {
  .card, .standing { break-inside: avoid; }
  .panels { grid-template-columns: repeat(3, 1fr); }
  .cards { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
  .slices { grid-template-columns: repeat(6, 1fr); }
}
"""
