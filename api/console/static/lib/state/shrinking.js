// Makes pictures smaller that are larger than the model takes: upstream would refuse them, so nothing is lost that it would use.
const TRIES = 8;

const toBlob = (canvas, type) => new Promise((resolve) => canvas.toBlob(resolve, type, 0.95));

async function draw(bitmap, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return { blob: await toBlob(canvas, type), width: canvas.width, height: canvas.height };
}

// `limits` = those of a model for pictures (`input_limits`); null = none are known. Returns { blob, from, to } with sizes as
// text, or null for a picture that fits or that this browser cannot decode.
export async function shrinkPicture(file, limits) {
  if (!limits) return null;
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return null;
  try {
    const { width, height } = bitmap;
    const mostBytes = limits.bytes ?? Infinity;
    let scale = Math.min(1, (limits.side?.[1] ?? Infinity) / Math.max(width, height), Math.sqrt((limits.area?.[1] ?? Infinity) / (width * height)));
    if (scale === 1 && file.size <= mostBytes) return null;
    // Only JPEG has no transparency that could be lost.
    const type = file.type === "image/jpeg" ? "image/jpeg" : "image/png";
    for (let n = 0; n < TRIES; n += 1) {
      const made = await draw(bitmap, scale, type);
      if (!made.blob) return null;
      if (made.blob.size <= mostBytes) return { blob: made.blob, from: `${width} × ${height}`, to: `${made.width} × ${made.height}` };
      scale *= Math.min(0.9, Math.sqrt(mostBytes / made.blob.size));
    }
    return null;
  } finally {
    bitmap.close();
  }
}
