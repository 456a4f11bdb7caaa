// Markdown of agents as elements: markdown-it reads it, DOMPurify removes what is not listed, and elements of the page are made of the
// rest. A stream changes only what is new, so a playing video keeps playing.
import DOMPurify from "../../vendor/dompurify/dompurify.js";
import MarkdownIt from "../../vendor/markdown-it/markdown-it.js";
import { html, useMemo } from "./preact.js";
import { platformUrl } from "../api/client.js";
import { t } from "../state/language.js";
import { CopyButton } from "./components.js";

// Longer text is shown as it is.
const MAX_CHARS = 50_000;
const MAX_NESTING = 20;
const SAFE_LINK = /^(?:https?:\/\/|mailto:|\/v1\/files\/)/i;
const OWN_FILE = /\/v1\/files\/([^/?#]+)\/(?:content|thumbnail)(?:[?#]|$)/;
// Our own answers name a video twice: as an element for clients that show HTML, and as a link, which is shown here.
const VIDEO_ELEMENT = /^<video controls src="[^"\n]*">\n[^\n]*\n<\/video>$/gm;
const ELEMENTS = ["p", "em", "strong", "s", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "br", "hr", "code"];
const CLEAN = { ALLOWED_TAGS: [...ELEMENTS, "pre", "a", "img"], ALLOWED_ATTR: ["href", "src", "alt", "start"], ALLOWED_URI_REGEXP: SAFE_LINK, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true };

// HTML in the text is shown as text.
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

const code = (text) => html`<div class="code"><pre tabindex="0" aria-label=${t("agent.code")}><code>${text}</code></pre><${CopyButton} text=${text} /></div>`;

// The elements of clean nodes. `shown` = ids of files that are shown beside the text.
function elements(nodes, shown) {
  return [...nodes].map((node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data;
    const tag = node.localName;
    const target = node.getAttribute(tag === "img" ? "src" : "href") ?? "";
    if (shown.has(target.match(OWN_FILE)?.[1])) return null;
    if (tag === "img") return target ? picture(target, node.getAttribute("alt")) : node.getAttribute("alt");
    if (tag === "pre") return code(node.textContent.replace(/\n$/, ""));
    const children = elements(node.childNodes, shown).filter((child) => child !== null);
    if (tag === "a") return target ? link(target, children) : children;
    if (!ELEMENTS.includes(tag) || (tag === "p" && !children.some((child) => typeof child !== "string" || child.trim()))) return null;
    return html`<${tag} ...${tag === "ol" && node.start !== 1 ? { start: node.start } : {}}>${children}<//>`;
  });
}

const NOTHING = new Set();

// Links lead to http, https and mail addresses only; a link with another scheme stays the text that it is.
export function Markdown({ text, shown = NOTHING }) {
  const clean = useMemo(() => (text.length > MAX_CHARS ? null : DOMPurify.sanitize(parser.render(text.replace(VIDEO_ELEMENT, "")), CLEAN)), [text]);
  return clean ? html`<div class="markdown">${elements(clean.childNodes, shown)}</div>` : html`<div class="markdown plain">${text}</div>`;
}
