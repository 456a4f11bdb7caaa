// What the viewer shows: items { id, job, file } of lib/api/results.js, or { file, title } where the job may not be seen; `file.job` may
// be the id of a job that is loaded when its parameters are asked for.
import { isOthers, jobTitle } from "../../api/jobs.js";

export const fileId = (file) => file.id ?? file.url.match(/\/v1\/files\/([^/?#]+)/)?.[1] ?? file.url;
export const jobIdOf = ({ job, file }) => job?.id ?? file.job;
export const modelOf = ({ job, file }) => job?.model ?? file.model;
export const titleOf = ({ job, file, title }) => title || (job ? jobTitle(job) : file.prompt || file.mime);
export const mediaOf = (file) => file.mime.split("/")[0];
export const sizeOf = (file) => file.width && `${file.width} × ${file.height}`;
// Results of others are read only.
export const isOwn = (item) => (item.job ? !isOthers(item.job) : Boolean(item.file.job));

// The name of an item in the address: JOB.FILE, so that a link can be opened on any page; FILE alone without a job.
export const itemKey = (item) => [jobIdOf(item), fileId(item.file)].filter(Boolean).join(".");
