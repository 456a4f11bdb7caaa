// What a person has changed and not saved: leaving the page, and closing a dialog with it, asks first.
import { useEffect } from "../ui/preact.js";

// Each entry: `inDialog` = any step in the history closes it, also one that stays on the page.
const forms = new Set();

export function useUnsaved(isChanged, { inDialog = false } = {}) {
  useEffect(() => {
    if (!isChanged) return undefined;
    const form = { inDialog };
    forms.add(form);
    return () => forms.delete(form);
  }, [isChanged]);
}

export const hasUnsaved = () => forms.size > 0;
export const hasUnsavedDialog = () => [...forms].some((form) => form.inDialog);
export const dropUnsaved = () => forms.clear();

addEventListener("beforeunload", (event) => {
  if (forms.size) event.preventDefault();
});
