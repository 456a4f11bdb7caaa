// Takes what a phone shared with the console into the draft: pictures become references, text goes to the prompt.
import { useEffect } from "../preact.js";
import { changeMode, draft, updateDraft } from "../../state/draft.js";
import { t } from "../../state/language.js";
import { readReferences } from "../../state/pictures.js";
import { navigate } from "../../state/router.js";
import { deleteShares, readShares } from "../../state/shared_files.js";
import { toast } from "../components.js";

let taking = false;

async function takeShares() {
  const shares = await readShares();
  const files = shares.flatMap((share) => share.files);
  const text = shares.map((share) => share.text).filter(Boolean).join("\n");
  const left = shares.reduce((sum, share) => sum + share.left, 0);
  if (draft.value.mode === "chat") changeMode("image");
  const { references, refused } = await readReferences(files, undefined);
  const prompt = [draft.value.prompt.trim(), text].filter(Boolean).join("\n");
  updateDraft({ images: [...draft.value.images, ...references], missingUploads: 0, ...(text ? { prompt } : {}) });
  // Only now: a page that is closed before this takes them the next time.
  await deleteShares(shares.map(({ id }) => id));
  if (refused.length) toast(t("play.not_pictures", { names: refused.join(", ") }), "bad");
  if (left) toast(t("share_in.left", { n: left }), "bad");
  if (references.length) toast(t("share_in.added", { n: references.length }));
  else if (!text && !refused.length) toast(t("share_in.lost"), "bad");
}

// `shared` = what the address says: "yes", or "lost" where no service worker received it.
export function useShared(shared) {
  useEffect(() => {
    if (!shared || taking) return;
    taking = true;
    const taken = shared === "lost" ? Promise.resolve(toast(t("share_in.lost"), "bad")) : takeShares();
    taken.finally(() => {
      taking = false;
      navigate(`?mode=${draft.value.mode === "chat" ? "agent" : draft.value.mode}`, { replace: true });
    });
  }, [shared]);
}
