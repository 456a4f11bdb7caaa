// Chat with the agent and with models: the list of conversations, the turns of the open one, and the field for the next message.
import { html, useEffect, useRef, useState } from "../preact.js";
import { api, hasScope } from "../../api/client.js";
import { useJobEvents } from "../../api/jobs.js";
import { changeDraft } from "../../state/chat_drafts.js";
import { applyEvent, loadTalk, NEW, sendMessage, startNew, talkOf } from "../../state/conversations.js";
import { t } from "../../state/language.js";
import { navigate, route } from "../../state/router.js";
import { createReference } from "../../state/pictures.js";
import { accountHeaders } from "../accounts/available.js";
import { Button, EmptyState, ErrorMessage, Loading, toast } from "../components.js";
import { chatModels, Composer } from "./composer.js";
import { addressOf, ConversationDrawer, ConversationList, NotFound } from "./list.js";
import { groupTurns, messageOf, Turn } from "./turns.js";

const NEAR_END_PX = 120;

export function AgentChat({ models, conversation = NEW }) {
  const [showList, setShowList] = useState(false);
  const [editing, setEditing] = useState(null);
  const id = conversation || NEW;
  const { turns, loaded, error } = talkOf(id).value;
  const choice = chatModels(models);
  useEffect(() => {
    loadTalk(id);
    setEditing(null);
  }, [id]);
  useJobEvents((event) => applyEvent(id, event));
  // A new conversation has its address as soon as the server knows it; the page may show another one by then.
  const onAccepted = (accepted) => accepted !== id && (route.peek().query.conversation ?? NEW) === id && route.peek().query.mode === "agent" && navigate(addressOf(accepted), { replace: true });
  const open = () => setShowList(false);
  const begin = () => {
    startNew();
    navigate(addressOf(NEW));
  };
  const isUnknown = error?.status === 404;
  const canMake = hasScope("generate");
  return html`<div class="agent"><aside class="card agent-list" aria-label=${t("agent.conversations")}><${ConversationList} current=${id} onDelete=${begin} onOpen=${startNew} /></aside>
    <section class="card chat" aria-label=${t("mode.chat")}>
      <div class="chat-bar"><${Button} small icon="list" onClick=${() => setShowList(true)}>${t("agent.conversations")}<//>
        ${canMake && id !== NEW && html`<${Button} small icon="plus" label=${t("agent.new")} onClick=${begin} />`}</div>
      ${showList && html`<${ConversationDrawer} current=${id} onDelete=${begin} onClose=${open} />`}
      <${Log} id=${id} turns=${turns}>
        ${error && (isUnknown ? html`<${NotFound} />` : html`<${ErrorMessage} error=${error} onRetry=${() => loadTalk(id)} />`)}
        ${!loaded && html`<${Loading} />`}
        ${loaded && !error && !turns.length && (canMake ? html`<${EmptyState} icon="chat" title=${t("agent.empty")}>${t("agent.empty_text")}<//>` : html`<${EmptyState} icon="lock" title=${t("play.read_only")}>${t("play.read_only_text")}<//>`)}
        ${groupTurns(turns).map((group, n, all) => html`<${Turn} key=${group.first.id} group=${group}
          actions=${n === all.length - 1 && !group.last.answering && id !== NEW && canMake ? actionsOf(id, group, choice, { edit: setEditing, onAccepted }) : null} />`)}<//>
      ${canMake && choice.length > 0 && !isUnknown && html`<${Composer} key=${id} id=${id} turns=${turns} models=${choice} editing=${editing} onEditEnd=${() => setEditing(null)} onAccepted=${onAccepted} />`}
    </section></div>`;
}

// The turns, scrolled to the end as long as the reader is there.
function Log({ id, turns, children }) {
  const element = useRef(null);
  const atEnd = useRef(true);
  const onScroll = ({ target }) => {
    atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_END_PX;
  };
  useEffect(() => {
    atEnd.current = true;
  }, [id, turns.length]);
  useEffect(() => {
    const { current } = element;
    const follow = () => atEnd.current && current.scrollTo(0, current.scrollHeight);
    // Pictures that load later make it longer too.
    const observer = new ResizeObserver(follow);
    observer.observe(current.firstElementChild);
    return () => observer.disconnect();
  }, []);
  return html`<div ref=${element} class="chat-log" role="log" aria-live="polite" tabindex="0" aria-label=${t("agent.conversation")} onScroll=${onScroll}><div class="chat-turns">${children}</div></div>`;
}

// What can be done with the newest turn.
function actionsOf(id, { first, last }, models, { edit, onAccepted }) {
  const model = models.find((item) => item.id === last.model) ?? models[0];
  const send = async (values) => {
    try {
      await sendMessage(id, { model, images: [], headers: accountHeaders(), onAccepted, ...values });
    } catch (failure) {
      toast(failure.message, "bad");
    }
  };
  return {
    edit: async () => {
      changeDraft(id, { text: messageOf(first), images: await picturesOf(first), model: model.id });
      edit(first.id);
    },
    retry: async () => send({ text: messageOf(first), images: await picturesOf(first), replaces: first.id }),
    proceed: () => send({ text: t("agent.continue_message"), continues: last.id }),
  };
}

// The pictures that were sent with a turn, as references.
async function picturesOf(turn) {
  if (!turn.inputs) return [];
  if (turn.images) return turn.images;
  const { data } = await api.get(`/v1/jobs/${turn.id}/inputs`);
  const kept = data.filter((item) => item.url || item.source_url);
  if (kept.length < turn.inputs) toast(t("play.pictures_lost", { n: turn.inputs - kept.length }), "bad");
  return kept.map((item) => createReference(item.url ?? item.source_url, "", item.media));
}

