"""HTML elements with automatic escaping, and the style sheet.

A str is text unless ``tag`` returned it. Names in a lab may contain any characters.
"""

from __future__ import annotations

import html

from lvsctl.output.text.style import printable

_VOID = frozenset({"meta", "br", "img", "source"})


class Html(str):
    """Markup, as ``tag`` returns it. Any other str is text."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """Create an element. Text among ``children`` is escaped; children and values None are left out.

    In names of attributes ``_`` becomes ``-``, and one at the end is dropped (``class_``).
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Concatenate text and markup."""
    return Html("".join(escaped(child) for child in children if child is not None))


def escaped(text: str) -> str:
    """Escape text; return markup unchanged."""
    return text if isinstance(text, Html) else html.escape(printable(text))


def number(value: float) -> str:
    """Format a coordinate without insignificant digits."""
    return f"{value:.1f}".removesuffix(".0")


STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5b6776;
--line:#d9dee5;
--pass:#0f7b45;--pass-bg:#e2f5ea;--fail:#b3261e;--fail-bg:#fde8e6;--inconclusive:#8a5a00;
--inconclusive-bg:#fff1d6;--client:#2563c9;--router:#5b6776;--director:#8b3fb8;--server:#0e7c86;
--mark:#fff0c2;--mark-ink:#6b4700;--request:#2563c9;--reply:#0e7c86;--ask:#7a8594;
--message:#b3261e}
@media screen and (prefers-color-scheme:dark){
:root{--bg:#10151c;--card:#18202a;--ink:#e6ebf1;--soft:#9aa7b6;
--line:#2c3744;--pass:#5fd897;--pass-bg:#123324;--fail:#ff8d84;--fail-bg:#421a18;
--inconclusive:#f4c066;--inconclusive-bg:#3b2c0c;--client:#7fb0ff;--router:#9aa7b6;
--director:#cf93f2;--server:#55ccd6;--mark:#3f3413;--mark-ink:#ffdf91;--request:#7fb0ff;
--reply:#55ccd6;--ask:#8592a3;--message:#ff8d84}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",
Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:36px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;display:flex;gap:14px;align-items:center;
flex-wrap:wrap}
h2{font-size:20px;margin:36px 0 12px}h3{font-size:16px;margin:0 0 4px}
h4{font-size:13px;margin:20px 0 8px;color:var(--soft);font-weight:600}
h5{font-size:12px;margin:0 0 2px;color:var(--soft);font-weight:600}
h6{font-size:12px;margin:0 0 4px;font-weight:700}
p{margin:0 0 4px}.lead{color:var(--soft);font-size:16px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;
margin:0 0 16px;overflow-x:auto}
code,pre,.fields dd,.layers dd,.tap,.number{font-family:ui-monospace,"SF Mono",Menlo,Consolas,
"DejaVu Sans Mono",monospace;font-size:12.5px}
.badge{display:inline-block;justify-self:start;border-radius:99px;padding:1px 11px;font-size:13px;
font-weight:700;
white-space:nowrap;border:1px solid currentColor}
h1 .badge{font-size:17px;padding:3px 16px}
.badge.pass{color:var(--pass);background:var(--pass-bg)}
.badge.fail{color:var(--fail);background:var(--fail-bg)}
.badge.inconclusive{color:var(--inconclusive);background:var(--inconclusive-bg)}
@media screen{.topology{min-width:var(--least)}}
.topology{display:block;width:100%;height:auto;margin:0 auto}
.topology text{fill:var(--ink);font-size:13px}
.topology .name{font-size:16px;font-weight:700;text-anchor:middle}
.topology .role{font-size:11.5px;text-anchor:middle;fill:var(--soft)}
.topology .vip-text{font-size:11.5px;text-anchor:middle;font-weight:600}
.topology .network{font-size:12px;fill:var(--soft);white-space:pre}
.topology .address{font-size:11.5px;font-family:ui-monospace,Menlo,"DejaVu Sans Mono",monospace}
.topology .network,.topology .address{paint-order:stroke;stroke:var(--card);stroke-width:5px;
stroke-linejoin:round}
.topology .bar{fill:var(--soft);opacity:.75}.cable{stroke:var(--soft);stroke-width:1.6}
.plug{fill:var(--card);stroke:var(--soft);stroke-width:2}
.box{fill:var(--card);stroke-width:2}
.node.client .box{stroke:var(--client)}.node.router .box{stroke:var(--router)}
.node.director .box{stroke:var(--director)}.node.real-server .box{stroke:var(--server)}
.vip{fill:var(--mark);stroke:var(--mark-ink);stroke-width:1}
.vip.silent{fill:none;stroke-dasharray:4 3}
.walk{border-collapse:collapse;width:100%;min-width:860px}
.walk th,.walk td{padding:0;vertical-align:top;text-align:left;font-weight:400}
.walk thead th{border-bottom:1px solid var(--line);color:var(--soft);font-size:12px;
padding-bottom:6px;
vertical-align:bottom}
.walk .n{width:34px;color:var(--soft);font-weight:700;font-size:12px;padding-top:33px;
text-align:right}
.walk .lanes{width:calc(var(--nodes)*130px);max-width:52%;position:relative}
.walk .why{padding:10px 0 12px 18px}
.walk td.lanes svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.walk tr.hop{height:64px}.walk tr.hop+tr.hop .why{border-top:1px solid var(--line)}
.walk tr.again .why{padding:3px 0 3px 18px;color:var(--soft);font-size:12.5px}
.heads{display:grid;grid-template-columns:repeat(var(--nodes),1fr)}
.head{text-align:center;font-weight:700;font-size:13.5px;color:var(--ink)}
.head::after{content:"";display:block;width:9px;height:9px;border-radius:9px;margin:3px auto 0;
background:var(--router)}
.head.client::after{background:var(--client)}.head.director::after{background:var(--director)}
.head.real-server::after{background:var(--server)}
.life{stroke:var(--line);stroke-width:2}
.arrow{stroke-width:2.2}
.label{font-size:12.5px;font-weight:700;text-anchor:middle;fill:var(--ink);
paint-order:stroke;stroke:var(--card);stroke-width:4px}
.tip{fill:context-stroke}.cross{stroke:var(--fail);stroke-width:2.5}
.hop .arrow,.again .arrow{stroke:var(--request)}.from{fill:var(--request)}
.reply .arrow{stroke:var(--reply)}.reply .from{fill:var(--reply)}
.neighbour-request .arrow,.neighbour-reply .arrow{stroke:var(--ask);stroke-dasharray:5 4}
.neighbour-request .from,.neighbour-reply .from{fill:var(--ask)}
.icmp-error .arrow{stroke:var(--message)}.icmp-error .from{fill:var(--message)}
.lost .arrow{stroke:var(--fail)}
.again .arrow{stroke-width:1.2;opacity:.75}
.tunnelled .arrow{stroke-width:5;stroke-linecap:round;opacity:.9}
.again.tunnelled .arrow{stroke-width:2.5}
.unpack{fill:var(--card);stroke:var(--request);stroke-width:2.5}
.way{font-size:13px}.since{float:right;color:var(--soft);font-size:12px}
.fields{display:flex;flex-wrap:wrap;gap:4px 6px;margin:5px 0}
.fields div{border:1px solid var(--line);border-radius:6px;padding:0 7px;display:flex;gap:7px;
align-items:baseline}
.fields dt{color:var(--soft);font-size:11.5px}.fields dd{margin:0}
.fields .changed{background:var(--mark);border-color:var(--mark-ink);color:var(--mark-ink)}
.fields .changed dt{color:var(--mark-ink)}.fields .changed dd{font-weight:700}
.fields s{font-weight:400;opacity:.75}
.frames{font-size:12px;color:var(--soft)}
details.claim{border:1px solid var(--line);border-radius:10px;margin:0 0 8px;
background:var(--card)}
details.claim.fail{border-color:var(--fail)}
details.claim.inconclusive{border-color:var(--inconclusive)}
summary{cursor:pointer}summary:focus-visible{outline:3px solid var(--client);outline-offset:2px;
border-radius:8px}
.claim>summary{list-style:none;display:grid;grid-template-columns:122px 1fr;gap:10px;
padding:10px 14px;
align-items:start}
.claim>summary::-webkit-details-marker{display:none}
.claim-text{display:grid;grid-template-columns:1fr auto;gap:0 16px}
.statement{font-weight:600}.claim-text code{color:var(--soft)}
.seen{grid-column:1/-1;color:var(--soft)}
.claim[open]>summary .seen{display:none}
.body{padding:2px 14px 12px 146px}
.compared{display:grid;grid-template-columns:1fr 1fr;gap:12px;margin:4px 0 12px}
.compared>div{border:1px solid var(--line);border-radius:8px;padding:8px 12px;
overflow-wrap:anywhere}
.fail .compared .observed{border-color:var(--fail);background:var(--fail-bg)}
.inconclusive .compared .observed{border-color:var(--inconclusive);
background:var(--inconclusive-bg)}
.frame{border-top:1px solid var(--line);padding:4px 0}
.frame summary code{overflow-wrap:anywhere}
.number{font-weight:700;margin-right:9px}.tap{margin-right:9px;color:var(--server)}
.direction{margin-right:9px;color:var(--soft);font-size:12px}
.layers{display:flex;flex-wrap:wrap;gap:10px;margin:8px 0}
.layers section{border:1px solid var(--line);border-radius:8px;padding:8px 10px;max-width:100%}
.layers dl{margin:0;display:grid;grid-template-columns:auto 1fr;gap:0 10px}
.layers dl div{display:contents}.layers dt{color:var(--soft);font-size:12px}
.layers dd{margin:0;overflow-wrap:anywhere}
pre{margin:6px 0;padding:10px;background:var(--bg);border-radius:8px;overflow-x:auto;
font-size:12px}
.none,.broken-by{color:var(--soft);font-size:13px;margin-top:8px}
.outcome{font-weight:700;margin:12px 0 0}.outcome.pass{color:var(--pass)}
.outcome.fail{color:var(--fail)}
.defs{position:absolute}
.skip{position:absolute;left:-999px}.skip:focus{left:8px}
footer{padding-top:8px;padding-bottom:48px;color:var(--soft);font-size:13px}
.rest>summary{margin:28px 0 12px;padding:6px 0}.rest>summary h2{display:inline;margin:0}
.cause{border-left:5px solid var(--fail)}.cause code{overflow-wrap:anywhere}
@media screen and (max-width:720px){.compared,.claim>summary,.claim-text{grid-template-columns:1fr}
.body{padding-left:14px}main,header,footer{padding-left:12px;padding-right:12px}}
@media screen and (max-width:960px){.walk,.walk thead,.walk tbody{display:block;min-width:0}
.walk tr,.walk tr.hop{display:grid;grid-template-columns:22px 1fr;height:auto}
.walk .n{width:auto;grid-row:1/3;text-align:left;padding-top:22px}.walk thead .why{display:none}
.walk .lanes{width:auto;max-width:none}
.walk td.lanes svg{position:static;display:block;height:0}
.head,.label{font-size:11px}.label.first{text-anchor:start}.label.last{text-anchor:end}
.heads.many .head{writing-mode:vertical-rl;justify-self:center}
.heads.many .head::after{margin:3px auto}
.walk .why,.walk tr.again .why{padding:4px 0 12px;grid-column:2;overflow-wrap:anywhere}}
@media print{:root{color-scheme:light;--bg:#fff}body,.lead{font-size:11px}
.card{border:0;padding:0;overflow:visible}tr,details.claim,.card>svg{break-inside:avoid}
main,header,footer{max-width:none;padding:0}h1{font-size:20px}h2{font-size:14px;margin:18px 0 6px}
code,pre,.fields dd,.layers dd,.tap,.number,.fields dt,.layers dt,.frames,.since,.direction,.none,
.broken-by,.way,.walk .n,.walk thead th,.head,.label,.badge,h4,h5,h6,footer,
.walk tr.again .why{font-size:9px}h1 .badge{font-size:12px}
.walk{min-width:0}.walk .lanes{width:calc(var(--nodes)*84px);max-width:48%}
details.rest::details-content{content-visibility:visible;block-size:auto}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
