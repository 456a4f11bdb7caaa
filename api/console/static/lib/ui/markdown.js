// Markdown of agents as elements. No HTML is made from text: the parser gives tokens, and only the elements below exist.
import MarkdownIt from "../../vendor/markdown-it/markdown-it.js";
import { html, useMemo } from "./preact.js";
import { platformUrl } from "../api/client.js";
import { t } from "../state/language.js";

// Longer text is shown as it is.
const MAX_CHARS = 50_000;
const MAX_NESTING = 20;
const SAFE_LINK = /^(?:https?:\/\/|mailto:|\/v1\/files\/)/i;
const OWN_FILE = /\/v1\/files\/[^/?#]+\/(?:content|thumbnail)(?:[?#]|$)/;
// Our own answers name a video twice: as an element for clients that show HTML, and as a link, which is shown here.
const VIDEO_ELEMENT = /^<video controls src="[^"\n]*">\n[^\n]*\n<\/video>$/gm;
const ELEMENTS = new Set(["p", "em", "strong", "s", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td"]);

const parser = new MarkdownIt({ html: false, linkify: false, breaks: true, maxNesting: MAX_NESTING });
// A list of what is allowed: the parser's own check is a list of what is not.
parser.validateLink = (link) => SAFE_LINK.test(link);

function link(href, children) {
  if (OWN_FILE.test(href)) {
    const [only] = children;
    if (children.length === 1 && typeof only === "string") return html`<video src=${platformUrl(href)} controls loop playsinline preload="metadata" aria-label=${only || t("kind.video")}></video>`;
    return html`<a href=${platformUrl(href)} target="_blank" rel="noopener">${children}</a>`;
  }
  return html`<a href=${href} rel="noopener noreferrer" target="_blank">${children.length ? children : href}</a>`;
}

// The page shows only pictures of this server; others would tell their host who reads them.
function picture(src, name) {
  if (!OWN_FILE.test(src)) return link(src, [name || src]);
  return html`<a href=${platformUrl(src)} target="_blank" rel="noopener"><img src=${platformUrl(src)} alt=${name || t("kind.image")} loading="lazy" /></a>`;
}

function element(token, children) {
  if (token.type === "link_open") return link(token.attrGet("href") ?? "", children);
  // Paragraphs of a list without empty lines.
  if (token.hidden || !ELEMENTS.has(token.tag)) return children;
  return html`<${token.tag}>${children}<//>`;
}

function leaf(token) {
  if (token.type === "inline") return elements(token.children);
  if (token.type === "image") return picture(token.attrGet("src") ?? "", token.content);
  if (token.type === "softbreak" || token.type === "hardbreak") return html`<br />`;
  if (token.type === "hr") return html`<hr />`;
  if (token.type === "code_inline") return html`<code>${token.content}</code>`;
  if (token.type === "fence" || token.type === "code_block") return html`<pre><code>${token.content}</code></pre>`;
  return token.content;
}

// Tokens name their nesting, so a list of what is open replaces recursion.
function elements(tokens) {
  const open = [{ children: [] }];
  for (const token of tokens) {
    if (token.nesting === 1) open.push({ token, children: [] });
    else if (token.nesting === 0) open.at(-1).children.push(leaf(token));
    else {
      const closed = open.pop();
      open.at(-1).children.push(element(closed.token, closed.children));
    }
  }
  return open[0].children;
}

// Links lead to http, https and mail addresses only; a link with another scheme stays the text that it is.
export function Markdown({ text }) {
  const parsed = useMemo(() => (text.length > MAX_CHARS ? null : elements(parser.parse(text.replace(VIDEO_ELEMENT, ""), {}))), [text]);
  return parsed ? html`<div class="markdown">${parsed}</div>` : html`<div class="markdown plain">${text}</div>`;
}
