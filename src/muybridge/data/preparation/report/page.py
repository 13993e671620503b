"""The frame of the report on a set: its style, and nothing that is fetched."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title} - clips</title>
<style>
:root {{ --paper: #fff; --ink: #1d1f23; --faint: #5d6470; --edge: #d9dce1; --grid: #e6e8ec; --soft: #f5f6f8;
  --kept: #0a7f5c; --lost: #c4500b; --lost-soft: #c4500b59; --link: #0b69b3; --warn: #fff4d6; --warn-edge: #b7791f; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #15171b; --ink: #e6e8eb; --faint: #a0a7b2; --edge: #363b44; --grid: #2a2e36; --soft: #1d2026;
    --kept: #4cd0a4; --lost: #ff9a62; --lost-soft: #ff9a6266; --link: #5cb3f5; --warn: #3a2f12;
    --warn-edge: #d9a441; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.4rem; margin: .2rem 0; }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .4rem; }}
h3 {{ font-size: 1rem; margin: 1.1rem 0 .4rem; }}
p {{ margin: .3rem 0; }}
a {{ color: var(--link); }}
nav {{ display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .5rem 0; font-size: .92rem; }}
.big {{ font-size: 1.1rem; }} .big b {{ color: var(--kept); }}
.note {{ color: var(--faint); font-size: .85rem; }}
.notes {{ background: var(--warn); border-left: 4px solid var(--warn-edge); margin: .8rem 0;
  padding: .6rem .8rem .6rem 1.8rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .88rem; }}
td, th {{ text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }}
td.n, th.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }}
td.s {{ overflow-wrap: normal; }}
.funnel {{ width: 100%; }} .funnel td.bar {{ width: 45%; padding-right: 0; }}
.funnel .name {{ min-width: 6.5rem; overflow-wrap: normal; }}
.bars {{ display: flex; height: .95rem; margin-top: .2rem; background: var(--soft); border-radius: .2rem;
  overflow: hidden; }}
.bars i {{ display: block; background: var(--kept); }} .bars i.lost {{ background: var(--lost); }}
.grid {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }}
figure {{ margin: 0; padding: .6rem; border: 1px solid var(--edge); border-radius: .4rem; min-width: 0; }}
figcaption {{ font-weight: 600; }} figure ul {{ font-size: .88rem; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font: 11px system-ui, sans-serif; fill: var(--faint); }}
svg .axis {{ stroke: var(--edge); }} svg .kept {{ fill: var(--kept); }} svg .lost {{ fill: var(--lost-soft); }}
svg .limit {{ stroke: var(--lost); stroke-width: 1.5; stroke-dasharray: 4 3; }}
svg text.at {{ fill: var(--lost); }}
.key {{ display: inline-block; width: .7rem; height: .7rem; border-radius: .15rem; background: var(--kept);
  margin-right: .3rem; }} .key.lost {{ background: var(--lost-soft); margin-left: .8rem; }}
.sheet {{ display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); }}
@media (min-width: 40rem) {{ .sheet {{ grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }} }}
.clip {{ min-width: 0; font-size: .82rem; background: var(--soft); border-radius: .4rem; padding: .4rem; }}
.clip img {{ display: block; width: 100%; height: auto; max-height: 8rem; object-fit: contain; border-radius: .2rem; }}
.clip .name {{ color: var(--faint); margin-top: .25rem; }}
.clip .gone {{ padding: 1.6rem .4rem; text-align: center; color: var(--faint); border: 1px dashed var(--edge); }}
details {{ margin: .5rem 0; }} summary {{ cursor: pointer; font-weight: 600; }}
ul {{ margin: .3rem 0; padding-left: 1.2rem; }}
pre {{ font-size: .82rem; line-height: 1.35; background: var(--soft); padding: .6rem; border-radius: .4rem;
  white-space: pre-wrap; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
