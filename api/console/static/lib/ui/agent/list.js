// The list of conversations: beside the open one on wide screens, in a drawer on small ones.
import { html, useEffect, useState } from "../preact.js";
import { hasScope } from "../../api/client.js";
import { deleteConversation, list, loadList, NEW, renameConversation } from "../../state/conversations.js";
import { t } from "../../state/language.js";
import { Link } from "../../state/router.js";
import { Button, confirm, Dialog, EmptyState, ErrorMessage, Loading, RelativeTime, SearchField, TextField, toast, useAction } from "../components.js";
import { Icon } from "../icons.js";

export const addressOf = (id) => (id === NEW ? "?mode=agent" : `?mode=agent&conversation=${id}`);

// `current` = the id of the open conversation; `onDelete()` is called when it was deleted, `onOpen()` when one was chosen.
export function ConversationList({ current, onDelete, onOpen }) {
  const [renaming, setRenaming] = useState(null);
  const { rows, more, query, loaded, error } = list.value;
  useEffect(() => {
    loadList();
  }, []);
  const remove = async (row) => {
    if (!(await confirm({ title: t("agent.delete"), text: t("agent.delete_text", { title: row.title }), action: t("action.delete") }))) return;
    try {
      await deleteConversation(row.id);
      toast(t("agent.deleted"));
      if (row.id === current) onDelete();
    } catch (failure) {
      toast(failure.message, "bad");
    }
  };
  return html`<div class="talks">${hasScope("generate") && html`<${Link} to=${addressOf(NEW)} class="button ${current === NEW ? "primary" : ""}" onClick=${onOpen}><${Icon} name="plus" size=${18} /><span>${t("agent.new")}</span><//>`}
    ${(rows.length > 0 || query) && html`<${SearchField} label=${t("agent.search")} value=${query} onChange=${(text) => loadList({ query: text })} />`}
    ${error && html`<${ErrorMessage} error=${error} onRetry=${() => loadList()} />`}
    ${!loaded && !error && html`<${Loading} />`}
    ${loaded && !rows.length && html`<p class="hint">${t(query ? "agent.none_found" : "agent.none")}</p>`}
    <ul>${rows.map((row) => html`<li key=${row.id} class="talk ${row.id === current ? "current" : ""}">
      <${Link} to=${addressOf(row.id)} aria-current=${row.id === current ? "page" : undefined} onClick=${onOpen}><span class="clamp-one">${row.title}</span><span class="hint"><${RelativeTime} at=${row.updated_at} /></span><//>
      ${hasScope("generate") && html`<${Button} small kind="quiet" icon="edit" label=${t("agent.rename", { title: row.title })} onClick=${() => setRenaming(row)} />
        <${Button} small kind="quiet" icon="trash" label=${t("agent.delete_named", { title: row.title })} onClick=${() => remove(row)} />`}</li>`)}</ul>
    ${more && html`<${Button} small onClick=${() => loadList({ more: true })}>${t("action.more")}<//>`}
    ${renaming && html`<${Rename} row=${renaming} onClose=${() => setRenaming(null)} />`}</div>`;
}

function Rename({ row, onClose }) {
  const [title, setTitle] = useState(row.title);
  const [save, busy] = useAction(async () => {
    await renameConversation(row.id, title);
    onClose();
  });
  const submit = (event) => {
    event.preventDefault();
    if (title.trim()) save();
  };
  return html`<${Dialog} title=${t("agent.rename_title")} onClose=${onClose} actions=${html`<${Button} onClick=${onClose}>${t("action.cancel")}<//>
    <${Button} kind="primary" type="submit" form="rename" busy=${busy} disabled=${!title.trim()}>${t("action.save")}<//>`}>
    <form id="rename" onSubmit=${submit}><${TextField} label=${t("agent.title")} value=${title} maxlength="200" onInput=${setTitle} /></form><//>`;
}

export function ConversationDrawer({ onClose, ...rest }) {
  return html`<${Dialog} drawer title=${t("agent.conversations")} onClose=${onClose}><${ConversationList} ...${rest} onOpen=${onClose} /><//>`;
}

export const NotFound = () => html`<${EmptyState} icon="chat" title=${t("agent.not_found")}>${t("agent.not_found_text")}<//>`;
