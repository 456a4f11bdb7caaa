// Marks results that the sandbox made: they are tests.
import { html } from "../preact.js";
import { t } from "../../state/language.js";

export const SandboxTag = ({ job }) => job.sandbox && html`<span class="tag">${t("first.sandbox_result")}</span>`;
