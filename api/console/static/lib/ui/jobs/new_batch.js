// The dialog that makes a batch of a JSONL or CSV file: it is uploaded and checked, then the total price is confirmed.
import { html, useState } from "../preact.js";
import { api, upload } from "../../api/client.js";
import { formatBytes, t } from "../../state/language.js";
import { Button, Dialog, ErrorMessage, Field, Progress, RadioGroup, Select, TextField } from "../components.js";
import { BatchErrors, PriceTable } from "./batch_price.js";

const WINDOWS = ["6h", "24h", "7d", "30d"];

export function NewBatchDialog({ onClose, onMade }) {
  const [file, setFile] = useState(null);
  const [name, setName] = useState("");
  const [window, setWindow] = useState("24h");
  const [priority, setPriority] = useState("normal");
  const [stored, setStored] = useState(null); // the uploaded file
  const [estimate, setEstimate] = useState(null);
  const [sent, setSent] = useState(null); // share of the upload
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const request = (id) => ({ input_file_id: id, completion_window: window, priority, ...(name.trim() ? { metadata: { name: name.trim() } } : {}) });
  const choose = (event) => {
    setFile(event.currentTarget.files[0] ?? null);
    setStored(null);
    setEstimate(null);
    setError(null);
  };
  const run = async (work) => {
    setBusy(true);
    setError(null);
    try {
      await work();
    } catch (failure) {
      setError(failure);
    }
    setSent(null);
    setBusy(false);
  };
  const check = () =>
    run(async () => {
      const form = new FormData();
      form.set("purpose", "batch");
      form.set("file", file, file.name);
      const known = stored ?? (await upload("/v1/files", form, { onProgress: setSent }));
      setStored(known);
      setSent(null);
      setEstimate(await api.post("/v1/batches", { ...request(known.id), dry_run: true }));
    });
  const accept = () =>
    run(async () => {
      await api.post("/v1/batches", request(stored.id));
      onMade();
    });
  const submit = (event) => {
    event.preventDefault();
    if (estimate?.valid) accept();
    else check();
  };
  return html`<${Dialog} title=${t("batches.new")} unsaved=${Boolean(file || name.trim()) && !busy} onClose=${onClose}><form class="stack" onSubmit=${submit}>
    <${Field} label=${t("batches.file")} hint=${t("batches.file_hint")}>${(id, describedBy) => html`<input id=${id} aria-describedby=${describedBy} type="file" accept=".jsonl,.ndjson,.csv,application/jsonl,text/csv" onChange=${choose} />`}<//>
    ${file && html`<p class="hint">${formatBytes(file.size)}</p>`}
    <${TextField} label=${t("keys.name")} value=${name} onInput=${setName} maxlength="100" />
    <${Select} label=${t("batches.window")} value=${window} onChange=${setWindow} options=${WINDOWS.map((item) => [item, t(`batches.window_${item}`)])} />
    <${RadioGroup} label=${t("batches.priority")} value=${priority} onChange=${setPriority} options=${[["normal", t("batches.normal")], ["idle", t("batches.idle")]]} />
    ${sent !== null && html`<${Progress} value=${sent * 100} label=${t("batches.uploading")} />`}
    ${estimate?.price && html`<${PriceTable} price=${estimate.price} />`}
    <${BatchErrors} errors=${estimate?.errors} />
    ${error && html`<${ErrorMessage} error=${error} />`}
    <div class="row end"><${Button} onClick=${onClose}>${t("action.cancel")}<//><${Button} kind="primary" type="submit" busy=${busy} disabled=${!file || (estimate && !estimate.valid)}>${t(estimate?.valid ? "batches.accept" : "batches.check")}<//></div>
  </form><//>`;
}
