CREATE TABLE "cellfleet_control"."salvage" (
	"op" text PRIMARY KEY NOT NULL,
	"cell" text NOT NULL,
	"failover" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."salvage_row" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "cellfleet_control"."salvage_row_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"salvage" text NOT NULL,
	"annex" text NOT NULL,
	"store" text NOT NULL,
	"table_name" text NOT NULL,
	"tenant" text NOT NULL,
	"key" text DEFAULT '' NOT NULL,
	"identity" jsonb NOT NULL,
	"row" jsonb,
	"theirs" jsonb,
	"first" text NOT NULL,
	"last" text NOT NULL,
	"changes" integer DEFAULT 1 NOT NULL,
	"lsn" text NOT NULL,
	"committed_at" text NOT NULL,
	"verdict" text DEFAULT 'homeless' NOT NULL,
	"decision" text DEFAULT 'open' NOT NULL,
	"note" text DEFAULT '' NOT NULL,
	"decided_at" timestamp with time zone
);
--> statement-breakpoint
CREATE INDEX "salvage_cell" ON "cellfleet_control"."salvage" USING btree ("cell");--> statement-breakpoint
CREATE UNIQUE INDEX "salvage_row_identity" ON "cellfleet_control"."salvage_row" USING btree ("salvage","store","table_name","identity");--> statement-breakpoint
CREATE INDEX "salvage_row_tenant" ON "cellfleet_control"."salvage_row" USING btree ("salvage","tenant");